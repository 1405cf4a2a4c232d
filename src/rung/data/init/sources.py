"""Which files hold the examples, which set each of them is, and where the documents are.

Knows names of files and folders; opens none but the documents, to see that they can be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rung.data.rows import GOLD_SUFFIX, SCHEMA_SUFFIX, SUPPORTED
from rung.errors import DataError
from rung.types import Document, SetName

SET_NAMES: dict[SetName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
CORPUS_NAMES = ("corpus", "docs", "documents", "passages")
_CORPUS_NOTES = 10
_FILE_NAMES = ("examples", "data", "dataset", "qa", "questions")


@dataclass(frozen=True)
class FoundCorpus:
    """The documents. written: as `corpus:` says it. why: who named them, and how many files are read."""

    written: str
    why: str
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Sources:
    """Files of examples by set, "" where rung makes the split, and what `examples:` says for each of them.

    data: what the user named. folder: where task.yaml is written. notes: what was left out.
    """

    data: tuple[str, ...]
    folder: Path
    sets: dict[str, list[Path]]
    written: dict[str, list[str]]
    corpus: FoundCorpus | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files of examples, in the order of the sets."""
        return [path for files in self.sets.values() for path in files]

    def without(self, hidden: Sequence[Path]) -> Sources:
        """Without files that hold no answers. A set that is then empty is none, and rung makes the split."""
        if not hidden:
            return self
        note = f"Left out, as no row has an answer: {_listed(hidden)}."
        kept = {
            name: [(path, said) for path, said in zip(files, self.written[name], strict=True) if path not in hidden]
            for name, files in self.sets.items()
        }
        if not kept.get("test"):
            kept = {"": [pair for pairs in kept.values() for pair in pairs]}
            note += " rung splits the others."
        sets = {name: [path for path, _ in pairs] for name, pairs in kept.items() if pairs}
        written = {name: [said for _, said in pairs] for name, pairs in kept.items() if pairs}
        return replace(self, sets=sets, written=written, notes=(*self.notes, note))

    def examples(self) -> object:
        """The value of `examples:`."""
        once = {name: list(dict.fromkeys(names)) for name, names in self.written.items()}
        short = {name: names[0] if len(names) == 1 else names for name, names in once.items()}
        return short.get("", short)


def find_sources(
    data: Sequence[str], docs: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Sources:
    """The files that DATA… of `rung init` names: files, folders, globs, hf:NAME. say: as in `read_documents`.

    Raises DataError where there is no file of examples, or a folder does not say which of several it is.
    """
    named: dict[Path, str] = {}
    notes: list[str] = []
    folders = [_folder_of(text) for text in data]
    folder = folders[0] if len(set(folders)) == 1 else Path(os.path.commonpath(folders))
    for text in data:
        remote = text.startswith("hf:")
        found, left_out = _files(text)
        if left_out:
            notes.append(f"Not taken for examples: {_listed(left_out)}.")
        for path in (p for p in found if not _is_gold_copy(p, found)):
            named.setdefault(path, text if remote else _relative(_written(path), folder))
    by_set: dict[str, list[Path]] = {}
    for path in named:
        by_set.setdefault(set_of(path) or "", []).append(path)
    if "train" not in by_set or "test" not in by_set:
        if len(by_set) > 1:
            notes.append(
                "There is no train file with a test file, so all files are taken together, and rung splits them."
            )
        by_set = {"": list(named)}
    elif unnamed := by_set.pop("", []):
        notes.append(f"Taken for train, as no set is in the name: {_listed(unnamed)}.")
        by_set["train"] += unnamed
    sets = {name: by_set[name] for name in ("", *SET_NAMES) if name in by_set}
    written = {name: [named[path] for path in files] for name, files in sets.items()}
    corpus = _corpus(folder, named, docs, notes, say)
    return Sources(tuple(data), folder, sets, written, corpus, tuple(notes))


def set_of(path: Path) -> SetName | None:
    """The set that the name of a file, or of its folder, says: train-00000-of-00002.parquet, test/a.jsonl."""
    parts = set(re.split(r"[^a-z]+", path.name.split(".")[0].lower()))
    for said_by in (parts, {path.parent.name.lower()}):
        said = [s for s, names in SET_NAMES.items() if said_by & set(names)]
        if len(said) == 1:
            return said[0]
    return None


def _files(text: str) -> tuple[list[Path], list[Path]]:
    """The files of examples that one DATA names, and files beside them that are left out. Raises DataError."""
    from rung.data.formats import data_files, files_of

    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not (text.startswith("hf:") or any(sign in text for sign in "*?[") or os.path.lexists(path)):
        raise DataError(f"{text}: no such file or folder. Check the path.")
    try:
        if text.startswith("hf:") or not path.is_dir() or (path / "state.json").is_file():
            return files_of(text if text.startswith("hf:") else str(path), Path.cwd()), []
        inside = [p for p in sorted(path.iterdir()) if p.is_dir() and set_of(p / "x") and not p.name.startswith(".")]
        if (path / "dataset_dict.json").is_file():  # saved by datasets: each split is a folder
            return [file for split in inside for file in files_of(str(split), path)], []
        found = data_files(path) or [file for split in inside for file in data_files(split)]
    except ValueError as e:
        raise DataError(f"rung init {text}: it {str(e).replace(f' ({path})', '')}") from None
    except OSError as e:
        raise DataError(f"{text}: cannot be read ({e.strerror}). Check its permissions.") from e
    return _examples_in(path, found)


def _written(path: Path) -> Path:
    """What names a file in task.yaml: itself, or the folder where `datasets` saved it among others."""
    return path.parent if (path.parent / "state.json").is_file() else path


def _folder_of(text: str) -> Path:
    """Where a task for this data is written: beside it."""
    if text.startswith("hf:"):
        return Path.cwd()
    path = Path(os.path.abspath(text))
    while not path.is_dir() and (any(sign in path.name for sign in "*?[") or not path.parent.is_dir()):
        path = path.parent
    return path if path.is_dir() else path.parent


def _examples_in(folder: Path, found: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files of a folder that hold examples, and the others that could be read. Raises DataError."""
    found = [p for p in found if not _is_gold_copy(p, found)]
    usable = [p for p in found if not _is_corpus(p, folder) and not p.name.endswith(SCHEMA_SUFFIX)]
    if not usable:
        raise DataError(f"{folder.name}: the folder holds no examples ({folder}). Put them there as {SUPPORTED}.")
    stem = {p: p.name.split(".")[0].lower() for p in usable}
    sets = {set_of(p) for p in usable}
    if {"train", "test"} <= sets:
        chosen = [p for p in usable if set_of(p)]
    else:
        chosen = next(([p] for name in _FILE_NAMES for p in usable if stem[p] == name), usable)
    return chosen, [p for p in found if p not in chosen and not p.name.endswith(SCHEMA_SUFFIX)]


def _is_gold_copy(path: Path, beside: Sequence[Path]) -> bool:
    """Whether a file is such a copy of one of the files beside it."""
    return path.name.endswith(GOLD_SUFFIX) and any(
        p != path and p.parent == path.parent and p.name.split(".")[0] == path.name.removesuffix(GOLD_SUFFIX)
        for p in beside
    )


def _is_corpus(path: Path, folder: Path) -> bool:
    parts = [*path.relative_to(folder).parts[:-1], path.name.split(".")[0]] if path.is_relative_to(folder) else []
    return any(part.lower() in CORPUS_NAMES for part in parts)


def _corpus(
    folder: Path, data: Iterable[Path], docs: str | None, notes: list[str], say: Callable[[str], None]
) -> FoundCorpus | None:
    """The documents named, or those beside the examples; what was not read goes to `notes`.

    Raises DataError where named ones are absent or cannot be read; others are then left out.
    """
    taken = set(data)
    if docs is not None:
        path = Path(os.path.abspath(docs))
        if not path.exists():
            raise DataError(f"--docs {docs}: no such file or folder ({path}). Check the path.")
        counted, documents = _read(path, taken, notes, say)
        return FoundCorpus(_relative(path, folder), f"named with --docs; {counted}", documents)
    beside = sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name))
    for name in CORPUS_NAMES:
        for path in beside:
            if path.name.split(".")[0].lower() != name or path in taken or not (path.is_dir() or _may_be_corpus(path)):
                continue
            try:
                counted, documents = _read(path, taken, notes, say)
            except DataError as error:
                notes.append(f"Not taken for documents: {str(error).splitlines()[0]}")
                continue
            kind, end = ("folder", "/") if path.is_dir() else ("file", "")
            return FoundCorpus(f"{path.name}{end}", f"a {kind} of documents beside the examples; {counted}", documents)
    return None


def _may_be_corpus(path: Path) -> bool:
    from rung.data.documents.kinds import named_kind
    from rung.data.formats import is_data_file

    return is_data_file(path) or named_kind(path) is not None


def _read(
    path: Path, data: Collection[Path], notes: list[str], say: Callable[[str], None]
) -> tuple[str, tuple[Document, ...]]:
    """How many files are read as documents, and these; what is said of the others goes to `notes`. Raises DataError."""
    from rung.data.corpus import read_documents

    read = read_documents(path, say, data)
    notes += [finding.message for finding in read.findings[:_CORPUS_NOTES]]
    if len(read.findings) > _CORPUS_NOTES:
        notes.append(f"{len(read.findings) - _CORPUS_NOTES} more notes about the documents: rung check lists them.")
    if not path.is_dir():
        counted = "one file"
    elif read.files < read.found:
        counted = f"{read.files:,} of {read.found:,} files {'are' if read.files != 1 else 'is'} read"
    else:
        counted = f"{read.files:,} file{'s are' if read.files != 1 else ' is'} read"
    return counted, read.documents


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(p.name for p in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")

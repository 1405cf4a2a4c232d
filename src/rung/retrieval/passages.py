"""Passages by their content: what names an index of them, and files of passages that are read one by one.

Knows no index. A corpus of any size takes 16 bytes a passage here, as long as it is read from its file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, overload

from rung.records import from_record, link_or_copy, object_of, read_lines, scratch_beside, write_lines, write_text
from rung.types import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE_FROM = 20_000_000
"""Bytes of a file of passages from which they are read from it one by one, instead of held in memory."""

_FIELDS = tuple(field.name for field in fields(Document))
_BLOCK = 1 << 24  # bytes read at once to find where lines begin


def searched(passage: Document) -> str:
    """The text of a passage that is searched: its title and its text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def keys_of(passages: Iterable[Document]) -> NDArray[np.int64]:
    """A number for the searched text of each passage, shape (passages,), all different.

    Equal texts get equal numbers wherever they stand; only a text that stands again gets another one, by how often it
    stood before. The first 64 bits of BLAKE2b: two of a million texts share them with a probability of 3e-8, and then
    count as equal.
    """
    import numpy as np

    keys = np.frombuffer(b"".join(_hash(_encoded(searched(p))) for p in passages), np.int64)
    keys, order = keys.copy(), np.argsort(keys, kind="stable")
    ordered = keys[order]
    times = 0
    again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1  # places in the order that repeat the one before
    for place, before in zip(again.tolist(), [-1, *again[:-1].tolist()], strict=True) if len(again) else ():
        times = times + 1 if before == place - 1 else 1
        keys[order[place]] = int.from_bytes(_hash(ordered[place].tobytes() + b"%d" % times), "little", signed=True)
    return keys


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


class PassageFile(Sequence[Document]):
    """The passages of a file as `write_passages` wrote it, read from it whenever they are asked for."""

    def __init__(self, path: Path) -> None:
        """Finds the lines of the file (about a second a GB). A last line torn by a kill is left out."""
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        self._starts = _line_starts(self._file)  # (passages + 1,)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> Document: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Document]: ...
    def __getitem__(self, place: int | slice) -> Document | Sequence[Document]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self.path}: no passage {place}; there are {len(self)}")
        start, end = (int(self._starts[place % len(self) + i]) for i in (0, 1))
        return _document(os.pread(self._file, end - start, start), self.path)

    def __iter__(self) -> Iterator[Document]:
        with self.path.open("rb") as file:
            for _, line in zip(range(len(self)), file, strict=False):
                yield _document(line, self.path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class _ById(Mapping[str, Document]):
    """The passages of a file by their ids: 16 bytes each in memory."""

    def __init__(self, passages: PassageFile) -> None:
        import numpy as np

        self._passages = passages
        hashes = np.frombuffer(b"".join(_hash(_encoded(p.id)) for p in passages), np.int64)
        self._places = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._places]

    def __getitem__(self, id_: str) -> Document:
        import numpy as np

        hashed = np.frombuffer(_hash(_encoded(id_)), np.int64)[0]
        first, end = (int(np.searchsorted(self._hashes, hashed, side=side)) for side in ("left", "right"))
        for place in self._places[first:end]:
            if (passage := self._passages[int(place)]).id == id_:
                return passage
        raise KeyError(id_)

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[str]:
        return (p.id for p in self._passages)


def by_id(passages: Sequence[Document]) -> Mapping[str, Document]:
    """The passages by their ids, in memory only where they are."""
    return _ById(passages) if isinstance(passages, PassageFile) else {p.id: p for p in passages}


def write_passages(path: Path, passages: Iterable[Document]) -> None:
    """Writes the passages into a file, whole or not at all."""
    write_lines(path, ({name: getattr(p, name) for name in _FIELDS} for p in passages))


def put_passages(path: Path, passages: Sequence[Document], beside: Iterable[Path]) -> None:
    """Makes a file of the passages: a link to one that holds the same, of those that are beside; else it is written.

    beside: files that were made by this function. What a file holds is noted next to it, in NAME.content.
    """
    content, note = _all_of(passages), _note(path)
    note.unlink(missing_ok=True)
    same = next((p for p in beside if p != path and p.is_file() and _noted(p) == content), None)
    if same is None:
        write_passages(path, passages)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = scratch_beside(path)
        link_or_copy(same, scratch)
        os.replace(scratch, path)
    write_text(note, content)


def read_passages(path: Path) -> Sequence[Document]:
    """The passages in a file: in memory where they are few, else read when asked for. None where there is no file."""
    if path.is_file() and path.stat().st_size >= FILE_FROM:
        return PassageFile(path)
    return tuple(from_record(Document, record) for record in read_lines(path))


def _all_of(passages: Iterable[Document]) -> str:
    """A name for these passages in this order with all that is known of each."""
    content = hashlib.blake2b(digest_size=16)
    for passage in passages:
        known = "\x1f".join(str(getattr(passage, name)) for name in _FIELDS)
        content.update(_encoded(f"{len(known)}\x1f{known}"))
    return content.hexdigest()


def _note(path: Path) -> Path:
    return path.with_suffix(".content")


def _noted(path: Path) -> str:
    note = _note(path)
    return note.read_text("utf-8") if note.is_file() else ""


def _document(line: bytes, path: Path) -> Document:
    return from_record(Document, object_of(line, path))


def _line_starts(file: int) -> NDArray[np.int64]:
    """Where each line begins and the last whole one ends, in bytes."""
    import numpy as np

    found, place = [np.zeros(1, np.int64)], 0
    while block := os.pread(file, _BLOCK, place):
        found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + place + 1)
        place += len(block)
    return np.concatenate(found)

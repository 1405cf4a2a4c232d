"""Embeddings on disk, by the content of the texts: what any run has embedded, no run embeds again.

One folder for each embedder and version. It holds blocks, files that are written whole and not changed: the digests of
some texts, then their vectors in half precision. Processes take turns by a lock. A text that stands in two blocks does
no harm. Knows nothing of passages and of search.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rung.records import scratch_beside
from rung.retrieval.embedders import Embedder
from rung.retrieval.shared import alone
from rung.types import Tell

_STEP_SECONDS = 1.0
"""About so long is embedded between two calls of `tell`."""
_BLOCK_SECONDS = 20.0
"""About so much work is lost when the process is killed."""
_MOST_FILES, _SMALL_BYTES = 100, 4 * 2**20
"""Where there are more files than that, the small ones become one."""
_DIGEST_BYTES = 16
_VALUE_BYTES = 2


class Embeddings:
    """The vectors of texts by one embedder. A folder that cannot be written to, and none, mean memory."""

    def __init__(self, embedder: Embedder, folder: Path | None) -> None:
        self._embedder = embedder
        self._blocks: list[Any] = []  # vectors, float16, (rows, d); from disk as memory maps
        self._place: dict[bytes, tuple[int, int]] = {}  # digest of a text -> (block, row)
        self._read: set[str] = set()  # names of the files that stand in _blocks
        self._folder: Path | None = None
        if folder is not None:
            made_by = f"{embedder.name}\n{embedder.version}\n{embedder.dimensions}"
            self._folder = folder / "embeddings" / hashlib.sha256(made_by.encode()).hexdigest()[:16]

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Those that are not embedded yet, each once, the shortest first."""
        self._refresh()
        return sorted(self._without(dict.fromkeys(texts)), key=len)

    def add(self, texts: Sequence[str], tell: Tell) -> None:
        """Embeds what is missing. Whatever `tell` raises goes through, and what was embedded until then is kept."""
        left = self.missing(texts)
        characters, step = max(1, sum(map(len, left))), 8

        def told() -> None:
            tell("embedding passages", 1 - sum(map(len, left)) / characters)

        while left:
            with self._turn(told):
                left, begun = self._without(left), time.monotonic()
                texts_done: list[str] = []
                vectors: list[Any] = []
                try:
                    while left and time.monotonic() - begun < _BLOCK_SECONDS:
                        start, some = time.monotonic(), left[:step]
                        vectors.append(self._embedder.embed(some))
                        texts_done, left = texts_done + some, left[step:]
                        step = _next_step(step, time.monotonic() - start)
                        told()
                finally:
                    if vectors:
                        self._keep(texts_done, vectors)

    def rows(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """(block, row) of each text. All of them must have been added."""
        return [self._place[_digest(text)] for text in texts]

    def block(self, number: int) -> Any:
        """The vectors of a block, float16, shape (rows, dimensions); perhaps a memory map."""
        return self._blocks[number]

    def _without(self, texts: Sequence[str] | dict[str, None]) -> list[str]:
        return [text for text in texts if _digest(text) not in self._place]

    @contextmanager
    def _turn(self, told: Callable[[], None]) -> Iterator[None]:
        """Within: no other process embeds by this embedder, and what others have embedded is known."""
        with ExitStack() as turn:
            if self._folder is not None:
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    turn.enter_context(alone(self._folder / ".lock", told))
                except OSError:
                    self._folder = None
            self._refresh()
            yield

    def _refresh(self) -> None:
        """Reads the blocks that have come since the last time."""
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("*.block")):
            if path.name not in self._read and (found := _read_block(path, self._embedder.dimensions)) is not None:
                self._read.add(path.name)
                self._know(*found)

    def _know(self, digests: Sequence[bytes], vectors: Any) -> None:
        block = len(self._blocks)
        self._blocks.append(vectors)
        self._place.update((digest, (block, row)) for row, digest in enumerate(digests))

    def _keep(self, texts: Sequence[str], vectors: Sequence[Any]) -> None:
        """Writes a block and reads it as others will; in memory, where the disk is full or not there."""
        import numpy as np

        digests = [_digest(text) for text in texts]
        block = np.concatenate(vectors).astype("<f2")  # (rows, d)
        if self._folder is not None:
            try:
                path = _write_block(self._folder, digests, block)
                if (found := _read_block(path, self._embedder.dimensions)) is not None:
                    self._read.add(path.name)
                    digests, block = found
                self._know(digests, block)
                self._join_small_ones()
                return
            except OSError:
                self._folder = None
        self._know(digests, block)

    def _join_small_ones(self) -> None:
        """Only the holder of the lock calls it. Who has an old file open goes on with it."""
        import numpy as np

        assert self._folder is not None
        paths = sorted(self._folder.glob("*.block"))
        small = [path for path in paths if path.stat().st_size < _SMALL_BYTES]
        if len(paths) <= _MOST_FILES or len(small) < 2:
            return
        found = [block for path in small if (block := _read_block(path, self._embedder.dimensions)) is not None]
        digests = [digest for block in found for digest in block[0]]
        joined = _write_block(self._folder, digests, np.concatenate([block[1] for block in found]))
        self._read.add(joined.name)  # what stands in it is known
        for path in small:
            if path != joined:
                _remove(path)


def _next_step(step: int, seconds: float) -> int:
    """How many texts are embedded at once after so many took so long."""
    return max(8, min(int(step * _STEP_SECONDS / max(seconds, 1e-3)), 2 * step, 32_768))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _write_block(folder: Path, digests: Sequence[bytes], vectors: Any) -> Path:
    """A block is named by its texts. Its size says how many rows it has, so it needs no head."""
    path = folder / f"{hashlib.sha256(b''.join(digests)).hexdigest()[:24]}.block"
    scratch = scratch_beside(path)
    try:
        with scratch.open("wb") as file:
            file.write(b"".join(digests))
            file.write(vectors.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        _remove(scratch)
    return path


def _read_block(path: Path, dimensions: int) -> tuple[list[bytes], Any] | None:
    """(digests, vectors as a memory map). None where the file is gone or torn: its texts are then embedded anew."""
    import numpy as np

    try:
        size, of_a_row = path.stat().st_size, _DIGEST_BYTES + _VALUE_BYTES * dimensions
        if not size or size % of_a_row:
            return None
        rows = size // of_a_row
        with path.open("rb") as file:
            digests = file.read(rows * _DIGEST_BYTES)
        vectors = np.memmap(path, dtype="<f2", mode="r", offset=len(digests), shape=(rows, dimensions))
    except OSError:
        return None
    return [digests[i : i + _DIGEST_BYTES] for i in range(0, len(digests), _DIGEST_BYTES)], vectors


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process reads it, where that forbids it
        path.unlink(missing_ok=True)

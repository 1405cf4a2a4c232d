"""LanceDB tables in a folder, one for each set of rows that was searched: found again, updated, never half.

Rows have keys that say their content. state.json is written last, with the sizes of all files: a table without it is
unfinished, is never searched, and the next build goes on with it. One that has it never changes: where some rows
changed, its files are linked into a new table, which then loses and gains the rows that differ. Knows nothing of what
is in a row.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import DamagedRecord, TaskError
from rung.records import SCRATCH, link_or_copy, read_json, write_json
from rung.resume import folder_once
from rung.retrieval.shared import alone
from rung.types import Tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIFT = 0.1
"""Share of rows that may change until the indexes are built anew. One that is only added to keeps counting the words of
rows that left."""
UNUSED_S = 30 * 86_400
"""Since a table was opened last, until it makes room for another."""

_REMOVED = 5_000  # rows a commit
_CACHE_MB = 256  # of memory, for what searches read again
_TABLE, _STATE = "passages", "state.json"
_WRITTEN_ONCE = ("data", "_indices", "_deletions")  # folders of a table in which LanceDB changes no file


class LanceTables:
    """The tables below a folder, and the rows that one of them is to hold."""

    def __init__(
        self,
        folder: Path,
        keys: NDArray[np.int64],
        schema: Any,
        rows: Callable[[NDArray[np.int64], Callable[[int], None]], Any],
        index: Callable[[Any, bool, Tell], None],
        *,
        written: int,
    ) -> None:
        """keys: of the rows, (n,), all different. schema: of pyarrow, with a column "key".

        rows: (places among the keys, told) -> a table of pyarrow; tells how many of them are done. index: (table,
        whether anew, tell) -> builds its indexes, or those that are absent. written: rows a commit.
        """
        self._folder, self._keys, self._schema = folder, keys, schema
        self._rows, self._index, self._size = rows, index, written
        self._content = _content_of(keys)

    def whole(self) -> Any:
        """The whole table of exactly these rows; None where there is none."""
        for state in sorted(self._folder.glob(f"*/{_STATE}")):
            try:
                kept = read_json(state) or {}
                if kept.get("content") != self._content or _files(state.parent) != kept["files"]:
                    continue
                table = _connected(state.parent).open_table(_TABLE)
                if table.count_rows() == len(self._keys):
                    os.utime(state)
                    return table
            except (OSError, RuntimeError, ValueError, DamagedRecord):  # damaged: another one is built
                continue
        return None

    def made(self, tell: Tell) -> Any:
        """The whole table of exactly these rows, after what is nearest to it was made so.

        What `tell` raises goes through, and the next call goes on from there. Raises TaskError for a fault of LanceDB.
        """
        with alone(self._folder / "lock", lambda: tell("another process is building an index", 0.0)):
            if (table := self.whole()) is not None:  # another process was faster
                return table
            self._make_room()
            home, changed_before = self._begun()
            with _named(home):
                table = _connected(home).create_table(_TABLE, schema=self._schema, exist_ok=True)
            changed = self._write(table, home, tell)
            with _named(home):
                indexes = table.list_indices()
                if indexes:  # a killed build may have left rows that no index holds
                    unindexed = max(table.index_stats(index.name).num_unindexed_rows for index in indexes)
                    changed = changed_before + max(changed, unindexed)
                anew = not indexes or changed > DRIFT * len(self._keys)
                self._index(table, anew, tell)
                table.optimize(cleanup_older_than=timedelta(milliseconds=1))  # nobody reads an older version of it
                if table.count_rows() != len(self._keys):
                    raise RuntimeError("it holds other rows than were written")
            state = {"content": self._content, "changed": 0 if anew else changed, "files": _files(home)}
            write_json(home / _STATE, state)
            tell("the index is whole", 1.0)
            return table

    def _begun(self) -> tuple[Path, int]:
        """The folder of the unfinished table to go on with, and how many of its rows changed since it was indexed.

        It is the one that shares most rows, of those of which at least half is wanted; a whole one is linked first. A
        table that cannot be read is removed, as is one that claims these rows and does not hold them.
        """
        import numpy as np

        best, home = -1, None
        for table in sorted(self._folder.glob(f"*/{_TABLE}.lance")):
            if table.parent.name.endswith(SCRATCH):
                continue
            try:
                claimed = read_json(table.parent / _STATE) or {}
                if claimed.get("content") == self._content:
                    raise ValueError("it holds other rows than were written")
                present = _keys_in(_connected(table.parent).open_table(_TABLE))
            except (OSError, RuntimeError, ValueError, DamagedRecord):
                shutil.rmtree(table.parent, ignore_errors=True)
                continue
            shared = int(np.isin(present, self._keys).sum())
            if 2 * shared >= len(present) and shared > best:
                best, home = shared, table.parent
        new = self._folder / secrets.token_hex(8)
        if home is None:
            return new, 0
        if (known := read_json(home / _STATE)) is None:
            return home, 0
        return folder_once(new, partial(_link_table, home)), int(known.get("changed", 0))

    def _write(self, table: Any, home: Path, tell: Tell) -> int:
        """Removes the rows that are not wanted, adds those that lack, and returns how many there were of both."""
        import numpy as np

        present = _keys_in(table)
        gone = np.setdiff1d(present, self._keys)
        with _named(home):
            for start in range(0, len(gone), _REMOVED):
                table.delete(f"key IN ({', '.join(map(str, gone[start : start + _REMOVED].tolist()))})")
        lacking = np.flatnonzero(~np.isin(self._keys, present))
        for start in range(0, len(lacking), self._size):

            def told(done: int, before: int = start) -> None:
                tell("passages are written into the index", (before + done) / len(lacking))

            rows = self._rows(lacking[start : start + self._size], told)
            with _named(home):
                table.add(rows)
        return len(gone) + len(lacking)

    def _make_room(self) -> None:
        """Removes whole tables that nobody has opened for long."""
        for state in self._folder.glob(f"*/{_STATE}"):
            if time.time() - state.stat().st_mtime > UNUSED_S:
                shutil.rmtree(state.parent, ignore_errors=True)


def _content_of(keys: NDArray[np.int64]) -> str:
    """A name for these rows, in whatever order."""
    import numpy as np

    return hashlib.blake2b(np.sort(keys).tobytes(), digest_size=16).hexdigest()


def _files(home: Path) -> dict[str, int]:
    """Bytes of each file of a table."""
    table = home / f"{_TABLE}.lance"
    return {str(p.relative_to(table)): p.stat().st_size for p in sorted(table.rglob("*")) if p.is_file()}


def _connected(folder: Path) -> Any:
    import lancedb

    session = lancedb.Session(index_cache_size_bytes=_CACHE_MB << 20, metadata_cache_size_bytes=_CACHE_MB << 18)
    return lancedb.connect(folder, session=session)


def _keys_in(table: Any) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = table.search().select(["key"]).to_arrow()["key"].to_numpy()
    return keys


def _link_table(home: Path, folder: Path) -> None:
    """Fills the folder with the table of another one: what is written once is linked, the rest is copied."""
    source, target = home / f"{_TABLE}.lance", folder / f"{_TABLE}.lance"
    for name in _WRITTEN_ONCE:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, copy_function=link_or_copy)
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=lambda folder, names: set(_WRITTEN_ONCE) & set(names))


@contextmanager
def _named(home: Path) -> Iterator[None]:
    """Within: a fault of LanceDB says which folder it is in."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as fault:
        raise TaskError(
            f"{home}: the index could not be built ({str(fault)[:300]}). See that the disk has room, delete the "
            "folder, and give the same command again."
        ) from fault

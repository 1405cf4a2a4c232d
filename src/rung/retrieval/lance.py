"""Search in a corpus of any size: a LanceDB table on disk, by full text and, with an embedder, by vectors.

A table holds one row a passage: its key, its words as every other search here cuts them, its vector. Texts stay with
the caller. Rows are named by their content. state.json is written last: a table without it is unfinished, is never
searched, and the next build goes on with it. One that has it never changes: where some passages changed, its files are
linked into a new table, which then loses and gains the rows that differ. LanceDB works in this process and calls
nobody.
Source: Cormack, Clarke & Büttcher, Reciprocal Rank Fusion (2009); BM25 as in `bm25.py`, with k1 = 1.2.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import TaskError
from rung.records import SCRATCH, link_or_copy, read_json, write_json
from rung.resume import folder_once
from rung.retrieval.passages import keys_of, searched
from rung.text import NORMAL_FORM, words
from rung.types import Document, Query, RetrieverSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rung.retrieval.embedders import Embedder

Tell = Callable[[str, float], None]

EXACT_UP_TO = 50_000
"""Rows up to which the vectors of all are compared; beyond, an index of them is asked first (IVF_PQ)."""
DRIFT = 0.1
"""Share of rows that may change until the indexes are built anew: what is only added to them weighs words as before."""

_FORMAT = 1
_WRITTEN = 20_000  # rows a commit; with vectors _EMBEDDED
_EMBEDDED = 2_000
_STEP = 128  # texts that are embedded between two calls of tell
_REMOVED = 5_000
_WAIT_S = 1.0  # between two looks at the lock of another process
_UNUSED_S = 30 * 86_400  # since a table was opened last, until it makes room for another
_BUILD_MB = 512  # of memory, for the index over words
_CACHE_MB = 256  # of memory, for what searches read
_MORE = 50  # hits beyond k, so that equal ones are in the order of the corpus where k cuts between them
_DEPTH = 100  # hits of each search that are fused
_FUSED_FROM = 60  # the constant of reciprocal rank fusion
_PROBES, _REFINE = 32, 10  # parts of the index over vectors that are read; hits a result that are compared exactly


def open_lance(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> LanceIndex:
    """The index over the passages, made or updated by `prepare` or the first search. folder None: in a scratch folder.

    Raises TaskError where lancedb is not installed.
    """
    try:
        import lancedb  # noqa: F401
    except ImportError:
        raise TaskError(
            'retriever: the kind "lancedb" needs a package more. Install it with: pip install "rung[lancedb]"'
        ) from None
    embedder = None
    if spec.embedder:
        from rung.retrieval.embedders import open_embedder

        embedder = open_embedder(spec.embedder, folder)
    return LanceIndex(passages, folder, stem=spec.stem, embedder=embedder)


class LanceIndex:
    """An index over passages in a folder that indexes of other passages share."""

    def __init__(
        self,
        passages: Sequence[Document],
        folder: Path | None = None,
        *,
        stem: str = "",
        embedder: Embedder | None = None,
    ) -> None:
        """folder: None is a scratch folder. embedder: None is words alone."""
        self._passages = passages
        self._stem, self._embedder = stem, embedder
        self._given = folder
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._table: Any = None
        self._preparing = threading.Lock()

    def prepare(self, tell: Tell = lambda what, share: None) -> None:
        """Opens the table that holds these passages, after writing what it lacks.

        tell: gets what is being done and the share of it that is done; what it raises ends the work, and the next call
        goes on from there.
        """
        with self._preparing:
            if self._table is not None:
                return
            self._number()
            if len(self._passages):
                self._table = self._whole() or self._brought_up(tell)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k best passages for the input of each query, best first.

        By words alone, passages that share no word with it are left out. Equal passages are in the order of the corpus.
        """
        self.prepare()
        if k <= 0 or not queries or self._table is None:
            return [[] for _ in queries]
        depth = k if self._embedder is None else max(k, _DEPTH)
        places = [self._by_words(query.input, depth) for query in queries]
        if self._embedder is not None:
            vectors = self._embedder.embed([query.input for query in queries], query=True)
            places = [_fused(row, self._by_vector(v, depth)) for row, v in zip(places, vectors, strict=True)]
        return [[self._passages[place] for place in row[:k]] for row in places]

    # ---- what is searched --------------------------------------------------------------------

    def _by_words(self, text: str, k: int) -> list[int]:
        from lancedb import query as asking

        if not (asked := self._words(text)):
            return []
        match: Any = asking.MatchQuery
        found = self._table.search(match(asked, "words"), query_type="fts").select(["key", "_score"])
        return self._ranked(found.limit(k + _MORE).to_arrow(), "_score", -1)[:k]

    def _by_vector(self, vector: NDArray[np.float32], k: int) -> list[int]:
        found = (
            self._table.search(vector, vector_column_name="vector").distance_type("dot").select(["key", "_distance"])
        )
        if self._approximate:
            found = found.nprobes(_PROBES).refine_factor(_REFINE)
        return self._ranked(found.limit(k + _MORE).to_arrow(), "_distance", 1)[:k]

    def _ranked(self, found: Any, column: str, sign: int) -> list[int]:
        """Places of the rows that were found, best first."""
        import numpy as np

        rows = np.searchsorted(self._ordered, found["key"].to_numpy())
        places = self._places[rows]
        return [int(p) for p in places[np.lexsort((places, sign * found[column].to_numpy()))]]

    def _words(self, text: str) -> str:
        """The words that are searched, parted by spaces; none holds one."""
        return " ".join(words(text))

    # ---- the table ---------------------------------------------------------------------------

    def _number(self) -> None:
        """Reads the keys of all passages, and finds the folder of tables like this one."""
        import numpy as np

        keys = keys_of(self._passages)
        self._keys = keys  # (passages,), in the order of the corpus
        self._places = np.argsort(keys, kind="stable")  # (passages,): place of each key of the next line
        self._ordered = keys[self._places]
        self._content = hashlib.blake2b(self._ordered.tobytes(), digest_size=16).hexdigest()
        made = {"format": _FORMAT, "normal_form": NORMAL_FORM, "stem": self._stem}
        if self._embedder is not None:
            made["embedder"] = [self._embedder.name, self._embedder.version, self._embedder.dimensions]
        name = hashlib.blake2b(json.dumps(made, sort_keys=True).encode(), digest_size=8).hexdigest()
        self._folder = self._home() / "lancedb" / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "lock").touch()
        except OSError:  # a cache that cannot be written spoils no run
            self._given = None
            self._folder = self._home() / name
            self._folder.mkdir(exist_ok=True)

    def _home(self) -> Path:
        if self._given is not None:
            return self._given
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="rung-index-")
        return Path(self._scratch.name)

    def _whole(self) -> Any:
        """The whole table of exactly these passages; None where there is none."""
        for state in sorted(self._folder.glob("*/state.json")):
            kept = read_json(state) or {}
            if kept.get("content") != self._content:
                continue
            try:
                table = _connected(state.parent).open_table("passages")
                if table.version != kept["version"] or table.count_rows() != len(self._passages):
                    continue
                state.touch()
            except (OSError, RuntimeError, ValueError):  # damaged: another one is built
                continue
            self._approximate = kept["approximate"]
            return table
        return None

    def _brought_up(self, tell: Tell) -> Any:
        """The table after the one that is nearest, or a link to it, was made to hold exactly these passages."""
        with _alone(self._folder / "lock", tell):
            if (table := self._whole()) is not None:  # another process was faster
                return table
            self._make_room()
            home, changed_before = self._begun()
            connection = _connected(home)
            table = connection.create_table("passages", schema=self._schema(), exist_ok=True)
            changed = self._write(table, tell)
            indexes = {column: index.name for index in table.list_indices() for column in index.columns}
            if "words" in indexes:
                changed = changed_before + max(changed, table.index_stats(indexes["words"]).num_unindexed_rows)
            anew = "words" not in indexes or changed > DRIFT * len(self._passages)
            self._approximate = self._embedder is not None and len(self._passages) > EXACT_UP_TO
            self._index(table, anew, indexes, tell)
            table.optimize(cleanup_older_than=timedelta(milliseconds=1))  # nobody reads it yet, so nothing has to stay
            if table.count_rows() != len(self._passages):
                raise RuntimeError(f"{home}: the index holds other rows than were written. Delete the folder.")
            state = {"content": self._content, "version": table.version, "approximate": self._approximate}
            write_json(home / "state.json", {**state, "changed": 0 if anew else changed})
            tell("the index is whole", 1.0)
            return table

    def _begun(self) -> tuple[Path, int]:
        """The folder of the unfinished table to go on with, and how many of its rows changed since it was indexed.

        It is the one that shares most rows, of those of which at least half is wanted; a whole one is linked first. A
        table that cannot be read is removed.
        """
        import numpy as np

        best, home = -1, None
        for table in sorted(self._folder.glob("*/passages.lance")):
            if table.parent.name.endswith(SCRATCH):
                continue
            try:
                present = _keys_in(_connected(table.parent).open_table("passages"))
            except (OSError, RuntimeError, ValueError):
                shutil.rmtree(table.parent, ignore_errors=True)
                continue
            shared = int(np.isin(present, self._ordered).sum())
            if 2 * shared >= len(present) and shared > best:
                best, home = shared, table.parent
        new = self._folder / secrets.token_hex(8)
        if home is None:
            return new, 0
        known = read_json(home / "state.json")
        if known is None:
            return home, 0
        return folder_once(new, partial(_link_table, home)), known["changed"]

    def _make_room(self) -> None:
        """Removes whole tables that nobody has opened for long."""
        for state in self._folder.glob("*/state.json"):
            if time.time() - state.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(state.parent, ignore_errors=True)

    def _write(self, table: Any, tell: Tell) -> int:
        """Removes the rows that are not wanted, adds those that lack, and returns how many there were of both."""
        import numpy as np

        present = _keys_in(table)
        gone = np.setdiff1d(present, self._ordered)
        for start in range(0, len(gone), _REMOVED):
            table.delete(f"key IN ({', '.join(map(str, gone[start : start + _REMOVED].tolist()))})")
        lacking = np.flatnonzero(~np.isin(self._keys, present))

        def told(done: int) -> None:
            tell("passages are written into the index", done / len(lacking))

        size = _WRITTEN if self._embedder is None else _EMBEDDED
        for start in range(0, len(lacking), size):
            table.add(self._rows(lacking[start : start + size], told, start))
        return len(gone) + len(lacking)

    def _schema(self) -> Any:
        import pyarrow as pa

        columns = [pa.field("key", pa.int64()), pa.field("words", pa.utf8())]
        if self._embedder is not None:
            columns.append(pa.field("vector", pa.list_(pa.float32(), self._embedder.dimensions)))
        return pa.schema(columns)

    def _rows(self, places: NDArray[np.int64], told: Callable[[int], None], done: int) -> Any:
        """The rows of some passages. told: gets how many passages are done, with those before."""
        import pyarrow as pa

        told(done)
        texts = [searched(self._passages[int(place)]) for place in places]
        columns = [pa.array(self._keys[places]), pa.array([self._words(text) for text in texts], pa.utf8())]
        if self._embedder is not None:
            vectors = []
            for start in range(0, len(texts), _STEP):
                vectors.append(pa.array(self._embedder.embed(texts[start : start + _STEP]).reshape(-1), pa.float32()))
                told(done + start)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.concat_arrays(vectors), self._embedder.dimensions))
        return pa.Table.from_arrays(columns, schema=self._schema())

    def _index(self, table: Any, anew: bool, indexes: Collection[str], tell: Tell) -> None:
        """Builds what indexes there are to be, where they are absent or to be built anew."""
        from lancedb.index import FTS, IvfPq

        if anew:
            tell("the index over words is built", 0.0)
            config = FTS(  # words come as they are to be compared, so nothing is done to them
                base_tokenizer="whitespace",
                max_token_length=None,
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
                memory_limit=_BUILD_MB,
            )
            table.create_index("words", config=config, replace=True)
        if self._approximate and (anew or "vector" not in indexes):
            tell("the index over vectors is built", 0.5)
            table.create_index("vector", config=IvfPq(distance_type="dot"), replace=True)


def _connected(folder: Path) -> Any:
    import lancedb

    session = lancedb.Session(index_cache_size_bytes=_CACHE_MB << 20, metadata_cache_size_bytes=_CACHE_MB << 18)
    return lancedb.connect(folder, session=session)


def _link_table(home: Path, folder: Path) -> None:
    """Fills the folder with the table of another one. What LanceDB never writes twice is linked, the rest is copied."""
    for name in ("data", "_indices", "_deletions"):
        if (home / "passages.lance" / name).is_dir():
            shutil.copytree(
                home / "passages.lance" / name, folder / "passages.lance" / name, copy_function=link_or_copy
            )
    shutil.copytree(home / "passages.lance", folder / "passages.lance", dirs_exist_ok=True, ignore=_linked)


def _linked(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("data", "_indices", "_deletions")]


def _keys_in(table: Any) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = table.search().select(["key"]).to_arrow()["key"].to_numpy()
    return keys


def _fused(*rankings: Sequence[int]) -> list[int]:
    """Places by the sum of their reciprocal ranks, best first; of equal ones the earlier place."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] = scores.get(place, 0.0) + 1 / (_FUSED_FROM + rank)
    return sorted(scores, key=lambda place: (-scores[place], place))


@contextmanager
def _alone(lock: Path, tell: Tell) -> Iterator[None]:
    """Within: no other process writes below the lock's folder."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    while True:
        try:
            held.acquire(timeout=_WAIT_S)
            break
        except Timeout:
            tell("another process is building an index", 0.0)
    try:
        yield
    finally:
        held.release()

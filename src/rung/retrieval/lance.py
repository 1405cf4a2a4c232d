"""Search in a corpus of any size: a LanceDB table on disk, by full text and, with an embedder, by vectors.

A row is a passage: its key, its words as every other search here cuts them, its vector. Texts stay with the caller.
LanceDB works in this process and calls nobody.
Source: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009), with k1 = 1.2 where `bm25.py` has 1.5.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import TaskError
from rung.retrieval import stemming
from rung.retrieval.fused import DEPTH, by_reciprocal_rank
from rung.retrieval.lance_tables import LanceTables
from rung.retrieval.passages import keys_of, searched
from rung.retrieval.shared import shared
from rung.text import NORMAL_FORM, words
from rung.types import Document, Query, RetrieverSpec, Tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rung.retrieval.embedders import Embedder

EXACT_UP_TO = 50_000
"""Rows up to which a query is compared with the vectors of all; beyond, an index of them is asked first (IVF_SQ, a
byte a number)."""

_FORMAT = 1
_WRITTEN = 20_000  # rows a commit; with vectors _EMBEDDED
_EMBEDDED = 2_000
_STEP = 128  # texts that are embedded between two calls of tell
_BUILD_MB = 512  # of memory, for building the index over words
_MORE = 50  # hits beyond k, so that equal ones are in the order of the corpus where k cuts between them
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

    def made() -> LanceIndex:
        from rung.retrieval.embedders import open_embedder

        embedder = open_embedder(spec.embedder, folder) if spec.embedder else None
        return LanceIndex(passages, folder, stem=spec.stem, embedder=embedder)

    return shared(passages, ("lancedb", spec.stem, spec.embedder, folder), made)


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
        """folder: None is a scratch folder. embedder: None is words alone. Raises TaskError for a language without a
        stemmer."""
        self.passages = passages
        self._stem, self._stemmed, self._stemming = stem, stemming.stemmer(stem), threading.Lock()
        self._embedder = embedder
        self._approximate = embedder is not None and len(passages) > EXACT_UP_TO
        self._given = folder
        self._table: Any = None
        self._preparing = threading.Lock()

    def prepare(self, tell: Tell = lambda what, share: None) -> None:
        """Opens the table that holds these passages, after writing what it lacks.

        tell: gets what is being done and the share of it that is done; what it raises ends the work, and the next call
        goes on from there.
        """
        import numpy as np

        with self._preparing:
            if self._table is not None or not len(self.passages):
                return
            keys = keys_of(self.passages)  # (passages,), in the order of the corpus
            self._places = np.argsort(keys, kind="stable")  # (passages,): place of each key of the next line
            self._ordered, self._keys = keys[self._places], keys
            size = _WRITTEN if self._embedder is None else _EMBEDDED
            tables = LanceTables(self._folder(), keys, self._schema(), self._rows, self._index, written=size)
            self._table = tables.whole() or tables.made(tell)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k best passages for the input of each query, best first.

        By words alone, passages that share no word with it are left out. Equal passages are in the order of the corpus.
        """
        self.prepare()
        if k <= 0 or not queries or self._table is None:
            return [[] for _ in queries]
        if self._embedder is None:
            places = [self._by_words(query.input, k) for query in queries]
        else:
            vectors, depth = self._embedder.embed([q.input for q in queries], query=True), max(DEPTH, 2 * k)
            places = [
                by_reciprocal_rank((self._by_words(query.input, depth), self._by_vector(vector, depth)))
                for query, vector in zip(queries, vectors, strict=True)
            ]
        return [[self.passages[place] for place in row[:k]] for row in places]

    # ---- what is searched --------------------------------------------------------------------

    def _by_words(self, text: str, k: int) -> list[int]:
        from lancedb import query as asking

        if not (asked := self._words(text)):
            return []
        match: Any = asking.MatchQuery
        found = self._table.search(match(asked, "words"), query_type="fts").select(["key", "_score"])
        return self._ranked(found.limit(k + _MORE).to_arrow(), "_score", -1)[:k]

    def _by_vector(self, vector: NDArray[np.float32], k: int) -> list[int]:
        if not vector.any():  # of an empty text
            return []
        found = self._table.search(vector, vector_column_name="vector").distance_type("dot")
        if self._approximate:
            found = found.nprobes(_PROBES).refine_factor(_REFINE)
        return self._ranked(found.select(["key", "_distance"]).limit(k + _MORE).to_arrow(), "_distance", 1)[:k]

    def _ranked(self, found: Any, column: str, sign: int) -> list[int]:
        """Places of the rows that were found, best first."""
        import numpy as np

        places = self._places[np.searchsorted(self._ordered, found["key"].to_numpy())]
        return [int(p) for p in places[np.lexsort((places, sign * found[column].to_numpy()))]]

    def _words(self, text: str) -> str:
        """The words that are compared, parted by spaces; none holds one."""
        with self._stemming:
            return " ".join(map(self._stemmed, words(text)))

    # ---- the table ---------------------------------------------------------------------------

    def _folder(self) -> Path:
        """Where tables like this one lie; in a scratch folder where the given one cannot be written."""
        made: dict[str, Any] = {"format": _FORMAT, "normal_form": NORMAL_FORM, "stem": self._stem}
        if self._stem:
            made["stemmers"] = stemming.version()
        if self._embedder is not None:
            made["embedder"] = [self._embedder.name, self._embedder.version, self._embedder.dimensions]
        name = hashlib.blake2b(json.dumps(made, sort_keys=True).encode(), digest_size=8).hexdigest()
        if self._given is not None:
            folder = self._given / "lancedb" / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "lock").touch()
                return folder
            except OSError:  # a cache that cannot be written spoils no run
                pass
        scratch = tempfile.mkdtemp(prefix="rung-index-")
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        return Path(scratch)

    def _schema(self) -> Any:
        import pyarrow as pa

        columns = [pa.field("key", pa.int64()), pa.field("words", pa.utf8())]
        if self._embedder is not None:
            columns.append(pa.field("vector", pa.list_(pa.float32(), self._embedder.dimensions)))
        return pa.schema(columns)

    def _rows(self, places: NDArray[np.int64], told: Callable[[int], None]) -> Any:
        import pyarrow as pa

        told(0)
        texts = [searched(self.passages[int(place)]) for place in places]
        columns = [pa.array(self._keys[places]), pa.array([self._words(text) for text in texts], pa.utf8())]
        if self._embedder is not None:
            vectors = []
            for start in range(0, len(texts), _STEP):
                vectors.append(pa.array(self._embedder.embed(texts[start : start + _STEP]).reshape(-1), pa.float32()))
                told(start)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.concat_arrays(vectors), self._embedder.dimensions))
        return pa.Table.from_arrays(columns, schema=self._schema())

    def _index(self, table: Any, anew: bool, tell: Tell) -> None:
        from lancedb.index import FTS, IvfSq

        indexed = {column for index in table.list_indices() for column in index.columns}
        if anew or "words" not in indexed:
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
        if self._approximate and (anew or "vector" not in indexed):
            tell("the index over vectors is built", 0.5)
            table.create_index("vector", config=IvfSq(distance_type="dot"), replace=True)

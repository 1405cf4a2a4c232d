"""Indexes of growing corpora: seconds to build, memory, milliseconds a query, disk, updates, and what is found.

    python bench/index_scale.py [--sizes 10000 100000] [--kinds bm25 lancedb fts5] [--folder PLACE] [--json FILE]
    python bench/index_scale.py --sizes 10000 1000000 --kinds lancedb fts5 --folder PLACE

Passages are synthetic: 100 words each of 200,000, drawn by Zipf's law; every thousandth also holds a planted fact, two
words that stand nowhere else together. Recall is the share of facts whose passage is among the first 5 for those words
among two common ones. Kinds:

    bm25             rung's index in memory, kept in the folder
    lancedb          rung's index on disk, by words alone
    lancedb-vectors  the same, fused with vectors. The embedder is made here: a random projection of words to 128
                     numbers. It is cheap and knows no meaning, so it measures the index and not an embedder. What the
                     index over vectors finds of the 10 nearest stands beside
    fts5             the peer: SQLite's full-text index (BM25), given the same words

Each kind runs in a process of its own, which reads the passages from their file when it needs them. Peak is the largest
resident set of that process while it builds; --limit-gb ends the process where its address space would pass it. Growth
is against the first size, ratios are against fts5 of the same size.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rung.retrieval.passages import read_passages, write_passages
from rung.types import Document, Query, RetrieverSpec

KINDS = ("bm25", "lancedb", "lancedb-vectors", "fts5")
WORDS, LENGTH, EVERY, QUERIES = 200_000, 100, 1_000, 200
ZIPF = 1.07


class Searches(Protocol):
    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]: ...


# ---- the corpus ------------------------------------------------------------------------------


def fact(place: int) -> tuple[str, str]:
    """Two words of a passage. Each stands in a thirtieth of the facts; the pair in no other, up to 1,147 of them."""
    number = place // EVERY
    return f"name{number % 31}x", f"thing{number % 37}x"


def corpus(n: int, *, changed: bool = False) -> Iterator[Document]:
    """n passages; changed: one in a hundred has other words, and none of them has a fact."""
    draw = np.random.default_rng(0)
    shares = np.arange(1, WORDS + 1) ** -ZIPF
    vocabulary = np.array([f"w{i}" for i in range(WORDS)])
    for start in range(0, n, 10_000):
        numbers = draw.choice(WORDS, size=(min(10_000, n - start), LENGTH), p=shares / shares.sum())
        for i, row in enumerate(numbers, start):
            if changed and i % 100 == 50:
                row = (row + 1) % WORDS
            text = " ".join(vocabulary[row].tolist())
            yield Document(f"p{i}", f"{text} {' '.join(fact(i))}" if i % EVERY == 0 else text)


def questions(n: int) -> list[tuple[Query, str]]:
    """(query, id of the passage that holds the fact)"""
    draw = random.Random(1)
    places = list(range(0, n, EVERY))
    asked = draw.sample(places, min(QUERIES, len(places)))
    return [(Query(str(i), f"w{draw.randrange(50)} w{draw.randrange(50)} {' '.join(fact(i))}"), f"p{i}") for i in asked]


# ---- what is compared ------------------------------------------------------------------------


class Projection:
    """An embedder for measurements: the sum of a random vector for each word."""

    name, version, dimensions = "random-projection", "1", 128

    def __init__(self) -> None:
        self._table = np.random.default_rng(0).normal(size=(1 << 16, self.dimensions)).astype(np.float32)

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        rows = np.stack([self._sum(text) for text in texts])  # (n, d)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    def _sum(self, text: str) -> Any:
        words = text.split()
        weights = np.array([0.1 if len(word) < 5 else 1.0 for word in words], np.float32)  # common ones say little
        return weights @ self._table[[zlib.crc32(word.encode()) & 0xFFFF for word in words]]


class Fts5:
    """SQLite's full-text index over the same words; texts stay in the file."""

    def __init__(self, passages: Sequence[Document], folder: Path) -> None:
        from rung.text import words

        self._words, self._passages = words, passages
        folder.mkdir(exist_ok=True)
        self._db = sqlite3.connect(folder / "fts5.db")
        made = self._db.execute("SELECT name FROM sqlite_master WHERE name = 'passages'").fetchone()
        if not made:
            options = "tokenize='unicode61 remove_diacritics 0'"
            self._db.execute(f"CREATE VIRTUAL TABLE passages USING fts5(words, {options})")
            rows = ((i, " ".join(words(p.text))) for i, p in enumerate(passages, 1))
            self._db.executemany("INSERT INTO passages(rowid, words) VALUES (?, ?)", rows)
            self._db.commit()

    def update(self, places: Sequence[int], passages: Sequence[Document]) -> None:
        """Puts other passages in these places; which ones it is told."""
        self._passages = passages
        self._db.executemany("DELETE FROM passages WHERE rowid = ?", [(i + 1,) for i in places])
        rows = ((i + 1, " ".join(self._words(passages[i].text))) for i in places)
        self._db.executemany("INSERT INTO passages(rowid, words) VALUES (?, ?)", rows)
        self._db.commit()

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        found = []
        for query in queries:
            asked = " OR ".join(f'"{word}"' for word in self._words(query.input))
            statement = "SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?"
            found.append([self._passages[row - 1] for (row,) in self._db.execute(statement, (asked, k))])
        return found


def opened(kind: str, passages: Sequence[Document], folder: Path) -> Searches:
    """The index, ready to be searched."""
    if kind == "fts5":
        return Fts5(passages, folder)
    if kind == "lancedb-vectors":
        from rung.retrieval.lance import LanceIndex

        index: Any = LanceIndex(passages, folder, embedder=Projection())
    else:
        from rung.retrieval import open_index

        index = open_index(RetrieverSpec(kind, 5, 1_000), passages, folder)
    getattr(index, "prepare", lambda tell: None)(lambda what, share: None)
    return index


# ---- measuring -------------------------------------------------------------------------------


def measured(kind: str, folder: Path, n: int, limit_gb: float) -> dict[str, float]:
    """Figures of one kind, in this process; run in a fresh one."""
    if limit_gb:
        resource.setrlimit(resource.RLIMIT_AS, (int(limit_gb * 2**30), int(limit_gb * 2**30)))
    place = folder / kind
    passages = read_passages(folder / "passages.jsonl")
    figures = {"memory_before_mb": _resident_mb()}
    index, figures["build_s"] = _timed(lambda: opened(kind, passages, place))
    figures["build_cpu_s"] = time.process_time()
    figures["build_peak_mb"] = _peak_mb()
    figures["disk_mb"] = sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) / 2**20
    asked = questions(n)
    index.search([asked[0][0]], 5)
    times, found = [], 0
    for query, right in asked:
        (row,), seconds = _timed(lambda query=query: index.search([query], 5))  # type: ignore[misc]
        times.append(1_000 * seconds)
        found += right in [d.id for d in row]
    figures["query_p50_ms"] = statistics.median(times)
    figures["query_p95_ms"] = sorted(times)[int(0.95 * (len(times) - 1))]
    figures["recall_at_5"] = found / len(asked)
    if kind == "lancedb-vectors":
        figures["vectors_recall_at_10"] = found_by_vectors(index, passages)
    _, figures["open_s"] = _timed(lambda: opened(kind, passages, place))
    changed = read_passages(folder / "changed.jsonl")
    if isinstance(index, Fts5):
        _, figures["update_s"] = _timed(lambda: index.update(range(50, n, 100), changed))
    else:
        _, figures["update_s"] = _timed(lambda: opened(kind, changed, place))
    figures["peak_mb"] = _peak_mb()
    return figures


def found_by_vectors(index: Any, passages: Sequence[Document]) -> float:
    """Share of the 10 nearest passages that the index over vectors finds, for halves of 50 passages as queries."""
    embedder, shares = Projection(), []
    for place in range(0, len(passages), len(passages) // 50):
        text = passages[place].text
        vector = embedder.embed([text[: len(text) // 2]])[0]
        exact = index._table.search(vector, vector_column_name="vector").distance_type("dot").bypass_vector_index()
        nearest = index._ranked(exact.select(["key", "_distance"]).limit(10).to_arrow(), "_distance", 1)
        shares.append(len(set(nearest) & set(index._by_vector(vector, 10))) / 10)
    return statistics.mean(shares)


def _timed(do: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return do(), time.perf_counter() - start


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, help="for corpora and indexes (3 GB for a million); else a scratch one")
    parser.add_argument("--limit-gb", type=float, default=0, help="address space of each process; 0: none")
    parser.add_argument("--keep", action="store_true", help="go on with indexes that a run before left in --folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, n = options.measure[0], int(options.measure[1])
        print(json.dumps(measured(kind, options.folder, n, options.limit_gb)))
        return
    place = options.folder or Path(tempfile.mkdtemp(prefix="rung-scale-"))
    rows = []
    try:
        for n in options.sizes:
            rows += of_size(n, place / str(n), options)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    finally:
        if not options.folder:
            shutil.rmtree(place, ignore_errors=True)
    print_ratios(rows)


def of_size(n: int, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of figures for each kind, printed as they come."""
    for name, changed in (("passages.jsonl", False), ("changed.jsonl", True)):
        if not (folder / name).exists():
            write_passages(folder / name, corpus(n, changed=changed))
    rows = []
    for kind in options.kinds:
        if not options.keep:
            shutil.rmtree(folder / kind, ignore_errors=True)
        command = [sys.executable, __file__, "--measure", kind, str(n), "--folder", str(folder)]
        done = subprocess.run([*command, "--limit-gb", str(options.limit_gb)], capture_output=True, text=True)
        row: dict[str, Any] = {"kind": kind, "passages": n}
        if done.returncode:
            row["failed"] = (done.stderr.strip().splitlines() or ["killed"])[-1][:300]
            print(f"{kind:16} {n:>9,}  failed: {row['failed']}", flush=True)
        else:
            row |= json.loads(done.stdout.splitlines()[-1])
            figures = "  ".join(f"{name} {value:,.2f}" for name, value in row.items() if isinstance(value, float))
            print(f"{kind:16} {n:>9,}  {figures}", flush=True)
        rows.append(row)
        if not options.keep:
            shutil.rmtree(folder / kind, ignore_errors=True)
    return rows


def print_ratios(rows: Sequence[dict[str, Any]]) -> None:
    done = {(row["kind"], row["passages"]): row for row in rows if "failed" not in row}
    names = ("build_s", "build_cpu_s", "build_peak_mb", "query_p50_ms", "query_p95_ms", "disk_mb", "open_s", "update_s")
    for (kind, n), row in done.items():
        first = next(other for (k, _), other in done.items() if k == kind)
        for what, other in (("fts5", done.get(("fts5", n))), (f"{first['passages']:,} passages", first)):
            if other is None or other is row:
                continue
            shown = "  ".join(f"{name} {row[name] / max(other[name], 1e-9):.2f}" for name in names)
            print(f"{kind:16} {n:>9,}  times {what}:  {shown}")


if __name__ == "__main__":
    main()

"""Files read by worker processes, a few at once. One that hangs or crashes costs its file alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rung.data.documents.kept import keep, kept, kept_at
from rung.data.documents.kinds import Kind
from rung.data.documents.parsed import ParsedFile, parsed_from
from rung.data.documents.worker import WALL_TIMES

SECONDS = 60.0
"""Of computing, that reading a file may take."""
SECONDS_A_MB = 20.0
MOST_SECONDS = 900.0
_WORKERS = 4
_MANY_FILES, _MANY_BYTES = 50, 20_000_000  # from so much on, reading is told
_LINES_EVERY = 10.0
_CPU_LIMIT = -int(getattr(signal, "SIGXCPU", 0))
_START = "import sys; sys.path[:] = {path!r}; from rung.data.documents.worker import main; main()"

Job = tuple[Path, Kind]


def parse_all(jobs: Sequence[Job], say: Callable[[str], None]) -> list[ParsedFile]:
    """What each file holds, in order; of files that were read before, what was kept. say: hears how far it is."""
    found = [_from_cache(path, kind) for path, kind in jobs]
    places = [place for place, (parsed, _) in enumerate(found) if parsed is None]
    size = sum(_size(jobs[place][0]) for place in places)
    if len(places) >= _MANY_FILES or size >= _MANY_BYTES:
        say(f"Reading {len(places):,} files of documents ({max(size, 1e6) / 1e6:,.0f} MB).")
    results = [parsed for parsed, _ in found]
    begun = told = time.monotonic()
    done = 0
    for count, (place, parsed) in enumerate(_parsed([(p, jobs[p]) for p in places]), 1):
        results[place] = parsed
        done += _size(jobs[place][0])
        if (where := found[place][1]) is not None:
            keep(where, parsed)
        if time.monotonic() - told >= _LINES_EVERY:
            told = time.monotonic()
            left = (told - begun) * (size - done) / done if done else 0.0
            say(f"Read {count:,} of {len(places):,} files of documents, about {left / 60:.0f} min left.")
    return [parsed for parsed in results if parsed is not None]


def _from_cache(path: Path, kind: Kind) -> tuple[ParsedFile | None, Path | None]:
    """What was kept of a file, and where it is kept."""
    try:
        place = kept_at(path, kind)
    except OSError as e:
        return ParsedFile(problem=f"cannot be read ({e.strerror}). Check its permissions.", lasting=False), None
    return kept(place), place


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _parsed(jobs: Sequence[tuple[int, Job]]) -> Iterator[tuple[int, ParsedFile]]:
    if not jobs:
        return
    workers: list[_Worker] = []
    own = threading.local()

    def work(job: tuple[int, Job]) -> tuple[int, ParsedFile]:
        if not hasattr(own, "worker"):
            own.worker = _Worker()
            workers.append(own.worker)
        return job[0], own.worker.parse(*job[1])

    pool = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1, len(jobs)))
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()


class _Worker:
    """A process that reads one file after the other; a new one takes its place where it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def parse(self, path: Path, kind: Kind) -> ParsedFile:
        seconds = min(SECONDS + SECONDS_A_MB * _size(path) / 1e6, MOST_SECONDS)
        begun = time.monotonic()
        try:
            line = self._ask({"path": os.fsencode(path).hex(), "kind": kind, "seconds": seconds})
        except (OSError, ValueError):  # ValueError: of a pipe that was closed meanwhile
            line = ""
        if self._ended:
            return ParsedFile(problem="was not read, as reading was interrupted.", lasting=False)
        if line:
            return parsed_from(json.loads(line))
        killed = self.end(for_good=False)
        if killed == _CPU_LIMIT or time.monotonic() - begun >= WALL_TIMES * seconds:
            fact = f"took over {seconds:.0f} seconds to be read, so it was left"
            return ParsedFile(problem=f"{fact}. Save it again, cut it, or convert it to text.", lasting=False)
        fact = "ended the program that reads it; it is damaged, or needs too much memory"
        return ParsedFile(problem=f"{fact}. Save it again, cut it, or convert it to text.", lasting=False)

    def _ask(self, request: dict[str, object]) -> str:
        """The answer, "" where the process died. Raises OSError where it cannot be asked."""
        if self._ended:
            raise OSError("reading was interrupted")
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=[os.path.abspath(p) for p in sys.path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def end(self, *, for_good: bool = True) -> int | None:
        """Ends the process; returns what ended it before, if anything did."""
        self._ended = self._ended or for_good
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            status = process.wait(0 if for_good else 5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was not sent any more
                    continue
        return status

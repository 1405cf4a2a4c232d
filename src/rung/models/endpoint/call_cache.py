"""Answers of endpoints, kept on disk by the hash of everything that decides them. What was put survives a kill.

An answer goes into a journal file by one write to the operating system before `put` returns; a thread moves the journal
into an SQLite file several times a second. The journal of a process that was killed is read at the next opening. Each
open cache has a journal of its own, and SQLite's locks order the rest, so several processes may use one file at once.
Knows keys and JSON records, nothing of what they mean. It stores what it is given: callers put no secret into it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from rung.errors import ModelError
from rung.models.endpoint.journal import CacheJournal

T = TypeVar("T")
Say = Callable[[str], None]

_EVERY_S = 0.25  # seconds between two commits: one of many records costs half of what five of few do
_FAILED_S = 1.0  # seconds until a commit that failed is tried again
_BUSY_S = 30.0  # seconds that SQLite waits for another process
_CHUNK = 400  # keys or records of one statement; SQLite takes 999 marks at least
_FORMAT = 0x72756E67  # "rung", as SQLite's application id
_VERSION = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = ("calls", "facts", "jobs")


class CallCache:
    """Answers by key, facts by name and batch jobs by id, in one SQLite file that is made where there is none.

    - All records are JSON objects. A second record under one key takes the place of the first.
    - `put` costs microseconds; what it was given survives a kill of the process once it has returned.
    - May be used by several threads, and by several processes at the same time.
    - A file that is damaged or of another format is renamed, never deleted; `say` gets a line about it.

    Every method raises ModelError where the file or its folder cannot be used: the disk is full, or read-only.
    """

    def __init__(self, path: Path, *, say: Say = lambda _: None) -> None:
        self.path, self._process = path, os.getpid()
        self._say = say
        self._lock = threading.Lock()  # of what follows; held for microseconds
        self._pending: dict[str, str] = {}  # in the journal, waiting for the thread
        self._moving: dict[str, str] = {}  # on their way into the SQLite file
        self._database_lock, self._reader_lock = threading.Lock(), threading.Lock()  # a lock for each connection
        self._folding = threading.Lock()
        self._due, self._closed = threading.Event(), threading.Event()
        self._writer: threading.Thread | None = None
        self._failed = False
        # One process at a time opens the cache, or looks for journals that were left behind.
        self._opening = FileLock(f"{path}.lock", mode=0o600, thread_local=False)
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, mode=0o700)
            with self._opening:
                self._database, self._reader = self._open()
                self._journal = CacheJournal(path)
                for records in CacheJournal.left_behind(path):
                    self._store("calls", records)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error

    # ---- answers ----------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The records of those keys that have one."""
        with self._lock:
            found = {key: held[key] for held in (self._moving, self._pending) if held for key in keys if key in held}
        rest = [key for key in keys if key not in found]

        def read(database: sqlite3.Connection) -> list[tuple[str, str]]:
            rows: list[tuple[str, str]] = []
            for at in range(0, len(rest), _CHUNK):
                chunk = rest[at : at + _CHUNK]
                marks = ",".join("?" * len(chunk))
                rows += database.execute(f"SELECT key, record FROM calls WHERE key IN ({marks})", chunk)
            return rows

        found.update(self._look_up(read) if rest else ())
        return {key: json.loads(record) for key, record in found.items()}

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keeps the record: it survives a kill of this process from now on, and `get` finds it."""
        text = json.dumps(record)
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError(f"{self.path}: the cache is closed")
            try:
                self._journal.append(key, text)
            except OSError as error:
                raise _unusable(self.path, error) from error
            first = not self._pending
            self._pending[key] = text
        if first:
            self._due.set()
            if self._writer is None:
                self._start()

    def flush(self) -> None:
        """Everything that was put is in the SQLite file when this returns."""
        while self._pending or self._moving:
            self._fold()

    def close(self) -> None:
        """Flushes and ends the thread. What cannot be flushed stays in the journal for the next opening.

        Does nothing in a forked process: the journal is that of its parent.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._due.set()
        if self._writer is not None:
            self._writer.join()
        try:
            self.flush()
        except ModelError as error:
            self._warn(error)
        with self._folding:
            self._journal.close(remove=not self._moving and not self._pending)
        self._reader.close()
        self._database.close()

    # ---- facts and jobs ---------------------------------------------------------------------

    def facts(self, name: str) -> dict[str, Any]:
        """What was learnt under this name; empty where nothing was."""
        return self._records("facts").get(name, {})

    def set_fact(self, name: str, record: Mapping[str, Any]) -> None:
        """Keeps it in the SQLite file before it returns."""
        self._keep("facts", name, record)

    def add_job(self, job: str, record: Mapping[str, Any]) -> None:
        """Keeps a batch job by its id (its keys, its state) before it returns; takes the place of an older record."""
        self._keep("jobs", job, record)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The batch jobs that were added and not dropped, by id, oldest first."""
        return self._records("jobs")

    def drop_job(self, job: str) -> None:
        self._sql(lambda database: database.execute("DELETE FROM jobs WHERE key = ?", (job,)))

    def _records(self, table: str) -> dict[str, dict[str, Any]]:
        query = f"SELECT key, record FROM {table} ORDER BY rowid"
        return {key: json.loads(text) for key, text in self._sql(lambda d: d.execute(query).fetchall())}

    def _keep(self, table: str, key: str, record: Mapping[str, Any]) -> None:
        self._store(table, {key: json.dumps(record)})

    # ---- from the journal into the SQLite file ----------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._writer is None and not self._closed.is_set():
                self._writer = threading.Thread(target=self._write, name="call cache", daemon=True)
                self._writer.start()

    def _write(self) -> None:
        """The thread: commits what is waiting, a few times a second, until the cache is closed."""
        while not self._closed.is_set():
            self._due.wait()
            self._due.clear()
            self._closed.wait(_EVERY_S)
            try:
                self.flush()
                self._failed = False
            except ModelError as error:
                self._warn(error)
                self._due.set()
                self._closed.wait(_FAILED_S)

    def _fold(self) -> None:
        """Commits the records that wait, and empties the half of the journal that held them."""
        with self._folding:
            with self._lock:
                if not self._moving:  # else an earlier commit failed, and its records are still in their half
                    self._moving, self._pending = self._pending, {}
                    self._journal.turn()
                batch = self._moving
            if batch:
                self._store("calls", batch)
            with self._lock:
                self._moving = {}
            self._journal.clear()  # of the half that `put` does not write to, so that none waits for the disk

    def _warn(self, error: ModelError) -> None:
        if not self._failed:
            self._say(f"{error} Until then answers wait in {self._journal.name}.*")
        self._failed = True

    # ---- the SQLite file --------------------------------------------------------------------

    def _store(self, table: str, records: Mapping[str, str]) -> None:
        """Writes the records in one transaction."""
        rows = list(records.items())

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("BEGIN IMMEDIATE")
                for at in range(0, len(rows), _CHUNK):  # a statement for each row would hold up other threads each time
                    chunk = rows[at : at + _CHUNK]
                    marks = ",".join(["(?, ?)"] * len(chunk))
                    database.execute(
                        f"INSERT INTO {table} VALUES {marks} ON CONFLICT (key) DO UPDATE SET record = excluded.record",
                        [text for row in chunk for text in row],
                    )

        self._sql(write)

    def _look_up(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` returns, without waiting for a commit that the thread is at."""
        with self._reader_lock:
            try:
                return read(self._reader)
            except sqlite3.Error:
                pass
        return self._sql(read)  # which says what is wrong, and sets a damaged file aside

    def _sql(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns. A file that turns out to be damaged is set aside and `work` done on a new one."""
        with self._database_lock:
            try:
                try:
                    return work(self._database)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    with self._reader_lock, self._opening:
                        self._reader.close()
                        self._database.close()
                        if self.path.exists() and self.path.stat().st_ino == self._inode:  # else another process did it
                            self._set_aside(error)
                        self._database, self._reader = self._open()
                    return work(self._database)
            except (OSError, sqlite3.Error) as error:
                raise _unusable(self.path, error) from error

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """The file, made where there is none, and tried; to write, and to look answers up.

        A file that is damaged is set aside.
        """
        try:
            database = self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            database = self._connect()
        self._inode = self.path.stat().st_ino
        return database, self._connection()

    def _connect(self) -> sqlite3.Connection:
        """Raises sqlite3.DatabaseError, as for a damaged file, when it is of another format."""
        with contextlib.suppress(FileExistsError):
            # SQLite's own would be readable by others. One that exists is not opened: closing it frees SQLite's locks.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        database = self._connection()
        try:
            (found,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and (found, version) != (_FORMAT, _VERSION):
                raise _Foreign("it was written by another program or version")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a commit survives a kill; a power cut may take the last
            if not tables:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    for table in _TABLES:
                        database.execute(f"CREATE TABLE {table} (key TEXT PRIMARY KEY, record TEXT NOT NULL)")
                    database.execute(f"PRAGMA application_id = {_FORMAT}")
                    database.execute(f"PRAGMA user_version = {_VERSION}")
            for table in _TABLES:
                database.execute(f"SELECT key, record FROM {table} LIMIT 1").fetchall()
        except BaseException:
            database.close()
            raise
        return database

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)

    def _set_aside(self, why: sqlite3.Error) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{secrets.token_hex(4)}")
        for ending in ("", "-wal", "-shm"):
            part = Path(f"{self.path}{ending}")
            if part.exists():
                part.rename(f"{aside}{ending}")
        self._say(f"{self.path}: it cannot be read ({why}) and was renamed {aside.name}; a new one is begun.")


class _Foreign(sqlite3.DatabaseError):
    """An SQLite file that is not a call cache of this version."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: answers cannot be kept or read there ({error}). Make room and the folder writable, or name another "
        "cache folder in the environment variable RUNG_CACHE."
    )

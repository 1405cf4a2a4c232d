"""Journals of a call cache: lines that survive a kill, and what a killed process left in them.

One write to the operating system keeps a line: it outlives the process, though not a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class CacheJournal:
    """Two files of lines ("key record"), of one open cache. New lines go to one half while the other is committed.

    A lock file, held as long as the cache is open, tells other processes that the journal is in use: the operating
    system frees it when the process dies.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._token = path, secrets.token_hex(6)
        self.name = f"{path.name}.{self._token}"
        self._lock = self._lock_of(path, self._token)
        self._lock.acquire()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._files = [os.open(half, flags, 0o600) for half in self._halves_of(path, self._token)]

    def append(self, key: str, text: str) -> None:
        """One write: whole lines of it survive whatever happens to this process afterwards."""
        line = f"{key} {text}\n".encode()
        written = os.write(self._files[0], line)
        if written < len(line):  # the next line must not be glued to this one
            os.ftruncate(self._files[0], os.fstat(self._files[0]).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def turn(self) -> None:
        """From now on lines go to the other half."""
        self._files.reverse()

    def clear(self) -> None:
        """Empties the half that new lines do not go to."""
        os.ftruncate(self._files[1], 0)

    def close(self, *, remove: bool) -> None:
        for file in self._files:
            os.close(file)
        if remove:
            self._remove(self._path, self._token)
            self._let_go(self._lock)
        else:
            self._lock.release()

    @staticmethod
    def left_behind(path: Path) -> Iterator[dict[str, str]]:
        """Records in the journals of dead processes, by key. Each journal is removed when the next one is asked for."""
        for token in CacheJournal._tokens(path):
            lock = CacheJournal._lock_of(path, token)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # its process is alive
                continue
            try:
                if records := CacheJournal._read(path, token):
                    yield records
                CacheJournal._remove(path, token)
            finally:
                CacheJournal._let_go(lock)

    @staticmethod
    def _tokens(path: Path) -> set[str]:
        """Of all journals beside the cache, whether in use or left behind."""
        beside = path.parent.glob(f"{glob.escape(path.name)}.*.*")
        return {found.name.split(".")[-2] for found in beside if found.suffix in (".a", ".b", ".lock")}

    @staticmethod
    def _lock_of(path: Path, token: str) -> FileLock:
        return FileLock(f"{path}.{token}.lock", mode=0o600, thread_local=False)

    @staticmethod
    def _let_go(lock: FileLock) -> None:
        """Frees the lock of a journal that is gone, and removes its file."""
        lock.release()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()

    @staticmethod
    def _halves_of(path: Path, token: str) -> list[Path]:
        return [path.with_name(f"{path.name}.{token}.{half}") for half in "ab"]

    @staticmethod
    def _read(path: Path, token: str) -> dict[str, str]:
        """The whole lines of it. A line that a kill tore is left out: its `put` never returned."""
        entries = {}
        for half in CacheJournal._halves_of(path, token):
            for line in half.read_bytes().splitlines() if half.exists() else ():
                key, _, text = line.decode("utf-8", "replace").partition(" ")
                with contextlib.suppress(ValueError):
                    json.loads(text)
                    entries[key] = text
        return entries

    @staticmethod
    def _remove(path: Path, token: str) -> None:
        for half in CacheJournal._halves_of(path, token):
            half.unlink(missing_ok=True)

"""The plain adapters that are in memory, by folder: read once, and dropped when too many bytes are held.

Safe to call from any thread: files are read outside the lock, so that one who reads keeps no other waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from rung.engine.adapter_folder import BASE, CONFIG, WEIGHTS, read_folder
from rung.engine.adapter_plain import AdapterLayout, LinearSize, NotFinite, PlainAdapter, plan_of, read_plain
from rung.engine.memory import free_bytes
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import ModelError, first_line

_SHARE, _LEAST, _MOST = 1 / 8, 256 << 20, 4 << 30  # of the free memory; bytes

Stamp = tuple[tuple[int, int, int], ...]


class HeldAdapters:
    """The plain adapters of one network. model: its name, for messages. sizes: of its linear layers, by name.

    most_bytes: held at most, the one that was used last in any case; None: a share of the memory that is free when the
    first one is read. The one whose use is longest ago is dropped first, and read again when it is needed.
    """

    def __init__(self, sizes: Mapping[str, LinearSize], model: str, dtype: torch.dtype, device: torch.device) -> None:
        self.most_bytes: int | None = None
        self._sizes, self._model, self._dtype, self._device = sizes, model, dtype, device
        self._lock = threading.Lock()
        self._held: dict[str, PlainAdapter] = {}  # the one used last stands last
        self._kinds: dict[str, Stamp | None] = {}  # of each folder that was read; None where PEFT has to load it
        self._layouts: dict[AdapterLayout, AdapterLayout] = {}  # one object for equal ones
        self._forgotten = 0

    @property
    def bytes(self) -> int:
        """That the held adapters take."""
        with self._lock:
            return sum(adapter.row.nbytes for adapter in self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, folder: str, base_version: str) -> PlainAdapter | None:
        """The adapter, read where it is not held; None where PEFT has to load it. base_version: of the network.

        Raises ModelError where the folder is no adapter for this network, or was rewritten since it was first read.
        """
        with self._lock:
            if (adapter := self._held.get(folder)) is not None:
                self._held[folder] = self._held.pop(folder)
                return adapter
            forgotten, known = self._forgotten, folder in self._kinds
            if known and self._kinds[folder] is None:
                return None
        stamp = _stamp(Path(folder))
        adapter = self._read(folder, base_version)
        with self._lock:
            if self._forgotten != forgotten:
                return adapter  # of this call alone: what is held next is read afresh
            if known and self._kinds[folder] != stamp:
                raise ModelError(f"adapter {folder}: its files have changed since it was loaded. Load it again.")
            self._kinds[folder] = stamp if adapter is not None else None
            if adapter is not None:
                self._held[folder] = adapter
                self._make_room()
        return adapter

    def forget(self, folder: str) -> PlainAdapter | None:
        """Frees it, and returns what was held; a folder that is rewritten on disk is read afresh."""
        with self._lock:
            self._forgotten += 1
            self._kinds.pop(folder, None)
            return self._held.pop(folder, None)

    def drop(self) -> None:
        """Frees all of them; they are read again when they are needed."""
        with self._lock:
            self._held.clear()

    def _read(self, folder: str, base_version: str) -> PlainAdapter | None:
        found = read_folder(Path(folder), base_version)
        try:
            plan = plan_of(found, self._sizes)
            if plan is None:
                return None
            layout = self._layouts.setdefault(plan.layout, plan.layout)
            return read_plain(replace(plan, layout=layout), self._dtype, self._device)
        except NotFinite as error:
            next_step = "Its training may have diverged: train it again, at a lower learning rate"
            raise ModelError(f"adapter {folder}: {error}. {next_step}.") from error
        except Exception as error:  # torn files: each library raises its own kinds
            if is_out_of_memory(error):
                raise
            fact = first_line(error)
            raise ModelError(f"adapter {folder}: it does not fit {self._model} ({fact}).") from error

    def _make_room(self) -> None:
        if self.most_bytes is None:
            self.most_bytes = max(_LEAST, min(_MOST, int(_SHARE * free_bytes(self._device))))
        held = sum(adapter.row.nbytes for adapter in self._held.values())
        while held > self.most_bytes and len(self._held) > 1:
            held -= self._held.pop(next(iter(self._held))).row.nbytes


def _stamp(folder: Path) -> Stamp:
    """Changes when the files of an adapter change."""
    found = [path.stat() for name in (CONFIG, WEIGHTS, BASE) if (path := folder / name).is_file()]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)

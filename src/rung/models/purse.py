"""Dollars for tokens that a run may spend, over all its commands and kills. Knows amounts, nothing of models.

A caller reserves the most that a call can cost before the call is made, and settles what it did cost. What is spent and
reserved never passes the limit. Before an amount is used, the file on disk covers it (the grant); so a run that was
killed counts at most too much, never too little.
"""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

from rung.errors import DamagedRecord, RunError
from rung.records import read_json, write_json

_UNITS = 10**12
"""Amounts are counted in whole units of 1e-12 USD: sums of many small amounts stay exact."""

_STEP = 100  # a grant runs ahead by at least the limit divided by this
_UNLIMITED_STEP = _UNITS // 100  # and by at least a cent where there is no limit


class Purse:
    """A limit in dollars, what is spent of it, and what is reserved for calls that are under way.

    path: a JSON file {"usd": …, "id": …}: what is spent; while a purse is open, the grant. limit_usd: None only counts.
    spent_before: dollars spent before there was such a file. id: of this file's purse over all commands; a file that is
    deleted and begun anew gets another.
    Raises RunError when the file cannot be read. May be used by several threads, but by one process at a time.
    """

    def __init__(self, path: Path, limit_usd: float | None, spent_before: float = 0.0) -> None:
        self.path = path
        self.limit = limit_usd
        self._most = None if limit_usd is None else _units(limit_usd)
        self._step = _UNLIMITED_STEP if self._most is None else self._most // _STEP
        usd, self.id = _read(path, spent_before)
        self._spent = self._granted = usd
        self._reserved = self._peak = 0  # peak: the most that was ever reserved at once
        self._kept_back = 0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """Dollars spent by all commands. What a killed command held reserved or granted counts as spent."""
        return self._spent / _UNITS

    @property
    def reserved(self) -> float:
        """Dollars reserved and not settled yet."""
        return self._reserved / _UNITS

    @property
    def left(self) -> float | None:
        """The most that can be reserved now, in dollars; None without a limit."""
        with self._lock:
            return None if self._most is None else max(0, self._room(self._most)) / _UNITS

    def keep_back(self, usd: float) -> None:
        """From now on `reserve` leaves so much free, in place of what was kept back before; 0 frees all."""
        with self._lock:
            self._kept_back = _units(usd)

    def reserve(self, usd: float) -> bool:
        """Whether so many dollars could be reserved. What was reserved must be settled, whatever happens."""
        amount = _units(usd)
        with self._lock:
            if self._most is not None and amount > self._room(self._most):
                return False
            self._grant(self._spent + self._reserved + amount)
            self._reserved += amount
            self._peak = max(self._peak, self._reserved)
        return True

    def settle(self, reserved: float, actual: float) -> None:
        """A call is over: reserved, as `reserve` got it, is free again, and actual is spent, even where it is more.

        A negative actual corrects what counted as spent too much.
        """
        with self._lock:
            self._reserved -= _units(reserved)
            self._spent += _units(actual)
            self._grant(self._spent + self._reserved)
            if not self._reserved and self._granted - self._spent > 2 * self._step:
                self._write(self._ahead(self._spent, self._step))  # nothing is under way: a kill now costs little

    def close(self) -> None:
        """Writes what is spent. What is still reserved counts as spent, since its calls may be charged."""
        with self._lock:
            self._spent += self._reserved
            self._reserved = 0
            if self._spent or self.path.exists():
                self._write(self._spent)

    def _room(self, most: int) -> int:
        return most - self._spent - self._reserved - self._kept_back

    def _grant(self, needed: int) -> None:
        """The file covers `needed` when this returns.

        A grant runs ahead by 1 % of the limit, or up to what was reserved at once before, so that writes are rare.
        """
        if needed > self._granted:
            step = max(self._step, self._reserved // 2, self._peak - self._reserved)
            self._write(self._ahead(needed, step))

    def _ahead(self, needed: int, step: int) -> int:
        return needed + step if self._most is None else max(needed, min(needed + step, self._most))

    def _write(self, granted: int) -> None:
        write_json(self.path, {"usd": granted / _UNITS, "id": self.id})
        self._granted = granted


def _units(usd: float) -> int:
    return round(usd * _UNITS)


def _read(path: Path, otherwise: float) -> tuple[int, str]:
    """What is spent, in units, and the id."""
    try:
        record = read_json(path)
        if record is None:
            record = {"usd": otherwise}
        usd = _units(float(record["usd"]))
        if usd < 0:
            raise ValueError("dollars that are spent cannot be negative")
        return usd, str(record.get("id") or secrets.token_hex(8))
    except (DamagedRecord, ValueError, OverflowError, TypeError) as error:
        raise RunError(
            f"{path}: it does not say what the run has spent. Write what your provider charged into it, "
            'as {"usd": 1.25}, then run the same command again.'
        ) from error

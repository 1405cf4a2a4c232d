"""Ctrl-C: how it is raised, and how work that must not be torn apart lets it wait.

Python calls handlers of signals in the main thread alone; in any other one nothing here does anything.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN_S = 3.0


def interrupt(*_: object) -> None:
    """The command line's handler of Ctrl-C, said again until it is heard: a bare `except` in a library may swallow it.

    Calls in flight have two seconds to end before it is said again.
    """
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    raise KeyboardInterrupt


class Held:
    """What `held` knows. count: of interrupts so far."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def held() -> Iterator[Held]:
    """Within: the first Ctrl-C is counted and raised at the end of the block; any further one is raised at once.

    The block ends itself soon where one was counted. A handler of the program's own is left alone: what it does, such
    as setting a flag, needs no waiting.
    """
    found = Held()
    former = signal.getsignal(signal.SIGINT) if _is_main_thread() else None
    if former not in (interrupt, signal.default_int_handler) or not callable(former):
        yield found
        return

    def count(number: int, frame: object) -> None:
        found.count += 1
        if found.count > 1:
            former(number, None)

    signal.signal(signal.SIGINT, count)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, former)
        if found.count == 1:
            _raise_as(former)


def _raise_as(former: object) -> None:
    """Raises what the handler raises, without the error by which the block ended: that one says the same."""
    try:
        former(signal.SIGINT, None)  # type: ignore[operator]  # it is callable
    except KeyboardInterrupt as error:
        raise error from None


@contextmanager
def unhurried() -> Iterator[None]:
    """Within: a Ctrl-C that was raised before is not said again. A further one is raised at once."""
    if not _is_main_thread() or not hasattr(signal, "SIGALRM") or signal.getsignal(signal.SIGALRM) is not interrupt:
        yield
        return
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()

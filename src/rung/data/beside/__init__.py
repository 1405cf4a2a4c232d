"""Rows that stand beside the examples: inputs without answers, synthetic rows, pairs of answers. None of them judges.

They are kept away from dev and the test: what nearly repeats a row of these is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rung.data.fence import Fence
from rung.types import Example, Preference, Query, Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Beside:
    """What the files hold that the task names beside its examples."""

    unlabelled: tuple[Query, ...] = ()
    synthetic: tuple[Example, ...] = ()
    preferences: tuple[Preference, ...] = ()


def read_beside(task: Task, fence: Fence, say: Say) -> Beside:
    """Reads them. say: hears how many rows were left out because dev or the test nearly holds them.

    Raises DataError with file, row and what to do for what cannot be read.
    """
    found = Beside()
    if task.unlabelled or task.synthetic or task.preferences:
        from rung.data.beside.preferences import read_preferences
        from rung.data.beside.synthetic import read_synthetic
        from rung.data.beside.unlabelled import read_unlabelled

        found = Beside(
            unlabelled=read_unlabelled(task, fence, say) if task.unlabelled else (),
            synthetic=read_synthetic(task, fence, say) if task.synthetic else (),
            preferences=read_preferences(task, fence, say) if task.preferences else (),
        )
    return found

"""Processes on the other cards of this machine: up while the run climbs, gone when it is tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rung.ladder.state import RunState, WholeRun
from rung.resume import is_done


@contextmanager
def on_other_cards(run: WholeRun) -> Iterator[None]:
    """Within: trainings may be done on other cards. They load the model while prompts are tried.

    Of several models, each starts its processes at its first training, since together they may not fit the cards.
    """
    if len(run.states) == 1 and _will_train(run.first):
        run.first.model.start_cards()
    try:
        yield
    finally:
        for state in run.states:
            state.model.close_cards()


def _will_train(state: RunState) -> bool:
    """Whether a strategy that trains is planned and not built."""
    steps = [step for step in state.plan.steps if step.applies and "fine-tune" in step.family]
    return any(not is_done(state.files.solution(step.name) / "built.json") for step in steps)

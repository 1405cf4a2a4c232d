"""What checks of finalists share: which are still to be made, asking dev rows again, and words where one was not made.

Asking is one stage: within the budget, metered, its answers kept as they come. A kill loses none of them, and a fault
ends the check alone: it stands in the record as the reason, and the next command tries again. Knows nothing of what is
asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rung import runs
from rung.errors import SealedTestError, fault_text
from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Meter, stage_of
from rung.ladder.plan import Step
from rung.ladder.state import RunState
from rung.resume import recorded
from rung.trials.trial import read_predictions
from rung.trials.workshop import Workshop
from rung.types import Prediction

Found = TypeVar("Found")
Ask = Callable[[Workshop, Path], list[Prediction]]
"""(workshop, where the answers are kept) -> scored answers."""


def is_due(record: Path) -> bool:
    """Whether a check has left no record, or one that says why it could not be made."""
    found = recorded(record)
    return found is None or found.get("why") is not None


def not_measured(what: str, why: str) -> str:
    """A whole sentence for the verdict. what: as its subject. why: a sentence part."""
    return f"{what} was not measured: {why.rstrip('.')}."


def asked_again(run: RunState, climbed: Climbed, name: str, step: Step, rows: int, ask: Ask) -> list[Prediction] | str:
    """The answers of a solution to so many dev rows as a check asks them; a sentence part, where something keeps it
    from being asked. step: the check in the plan, by whose kind its folder is called."""
    path = run.files.solution(name) / step.kind / "predictions.jsonl"
    if (why := no_room(run, climbed, step, rows - len(read_predictions(path)))) is not None:
        return why
    return as_stage(run, climbed, name, step.kind, lambda workshop: ask(workshop, path))


def no_room(run: RunState, climbed: Climbed, step: Step, calls: int) -> str | None:
    """Reason why so many calls, at what the step takes in the plan, would exceed the budget; None where they would not,
    or there are none to make."""
    share = calls / max(1, step.calls)
    return run.over_budget(climbed, share * step.seconds, calls, usd=share * step.usd) if calls > 0 else None


def as_stage(run: RunState, climbed: Climbed, name: str, what: str, work: Callable[[Workshop], Found]) -> Found | str:
    """What the work finds about a solution; what kept it from that, where a fault of an index, a metric, a library or
    rung did. what: the check, by which its folder is called."""
    folder = run.files.solution(name) / what
    meter = Meter(run.asked, folder)
    try:
        found = work(run.workshop(folder, climbed, meter))
    except SealedTestError:
        raise
    except Exception as fault:
        runs.log(run.folder, "not checked", solution=name, what=what, why=(why := fault_text(fault)))
        return why
    runs.log(run.folder, "checked", stage=stage_of(run.folder, folder), solution=name, **meter.record())
    meter.done()
    return found

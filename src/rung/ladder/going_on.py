"""The command with which a run goes on that its budget kept from trying something, and what it takes."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence

from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Spent
from rung.ladder.plan import Step
from rung.ladder.state import RunState, WholeRun
from rung.resume import is_done
from rung.strategies import long_form
from rung.types import Skipped

_SPARE = 1.15
"""Times the estimates: what a command with a larger budget should have."""


def command(run: WholeRun, climbed: Climbed, lacking: Sequence[Skipped], only: Sequence[str] = ()) -> str:
    """The command that goes on with enough budget for what is lacking. Every limit that is set is raised. It works
    from any folder: it is read in a report, too."""
    words = ["rung", "run", str(run.inputs.task.path), "--out", os.path.abspath(run.folder)]
    words += ["--only", ",".join(only)] if only else []
    words += ["--exhaustive"] if run.first.exhaustive else []
    words += ["--engine", run.inputs.task.engine] if run.first.engine_named else []
    needed = _needed(run, climbed, lacking)
    budget = run.first.ledger.budget
    if budget.minutes is not None:
        words += ["--minutes", str(math.ceil(max(budget.minutes, needed.seconds / 60)))]
    if budget.usd is not None:
        words += ["--usd", f"{math.ceil(100 * max(budget.usd, needed.usd)) / 100:g}"]
    if budget.calls is not None:
        words += ["--calls", str(max(budget.calls, needed.calls))]
    return shlex.join(words)


def _needed(run: WholeRun, climbed: Climbed, lacking: Sequence[Skipped]) -> Spent:
    """What all commands together have to spend, so that what the budget kept out is tried and tested."""
    lacking = [s for s in lacking if s.reason == "budget"]
    spent = run.first.ledger.spent
    if not lacking:
        return spent
    steps = list({step.name: step for s in lacking for step in _steps(run.of(s.model), s)}.values())
    groups = {(s.model, s.family) for s in lacking}
    built = run.first.reserve(climbed)
    more = [run.of(model).reserve(climbed, family) for model, family in groups]
    reserve_s = built.seconds + sum(r.seconds - built.seconds for r in more)
    reserve_calls = built.calls + sum(r.calls - built.calls for r in more)
    reserve_usd = built.usd + sum(r.usd - built.usd for r in more)
    seconds = spent.seconds + _SPARE * (sum(step.seconds for step in steps) + reserve_s)
    calls = spent.calls + math.ceil(_SPARE * sum(step.calls for step in steps)) + reserve_calls
    tokens_usd = run.first.ledger.tokens_usd + _SPARE * (sum(step.usd for step in steps) + reserve_usd)
    return Spent(seconds, calls, tokens_usd + seconds / 3600 * run.first.ledger.hourly)


def minutes_for(run: RunState, skipped: Skipped) -> float | None:
    """About how long trying it takes; None where the budget was not the reason."""
    if skipped.reason != "budget":
        return None
    return max(0.1, _SPARE * sum(step.seconds for step in _steps(run, skipped)) / 60)


def _steps(run: RunState, skipped: Skipped) -> list[Step]:
    """What trying it takes: the strategy itself, and its pilot where there was none yet; of a repair and of a shorter
    prompt, what is planned for all of them."""
    step = next((s for s in run.plan.steps if s.name == skipped.name), None)
    if step is None:
        return [run.plan.shortening if long_form(skipped.name) is not None else run.plan.skills]
    return [step, run.plan.pilot] if step.strategy.pilot is not None and not is_done(run.files.pilot) else [step]

"""Where the budget has no time for it, neither general skills are checked nor a step of their repair is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rung.ladder import skills_check
from rung.ladder.climbed import Built, Climbed
from rung.ladder.skills_check import check_skills
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.testing import Silent
from rung.types import Decoding, Score, Solution, Speed

NO_TIME = "the budget of 15 minutes leaves no time for it"


def tuned(folder: Path) -> tuple[Any, Climbed]:
    """A run whose budget is spent, and what it built."""
    from rung.ladder.plan import TYPICAL

    built = Built(Solution("lora", "Do it.", Decoding(1), adapter="a"), (), Score(0.7, 0.6, 0.8, 50))
    plan = SimpleNamespace(texts=TYPICAL, speed=Speed(1000.0, 10.0, 100.0), skills=SimpleNamespace(usd=0.0))

    def over_budget(climbed: Climbed, seconds: float, calls: int, family: Any = None, usd: float = 0.0) -> str | None:
        return NO_TIME if seconds > 0 else None

    run = SimpleNamespace(
        folder=folder,
        files=Files(folder),
        name="",
        named=str,
        listener=Silent(),
        plan=plan,
        asked=(),
        over_budget=over_budget,
    )
    return run, Climbed(built={"lora": built})


def test_no_step_of_a_repair_is_trained_that_the_budget_has_no_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains(*_: object) -> Solution:
        raise AssertionError("a step was trained")

    run, climbed = tuned(tmp_path)
    total = SimpleNamespace(difference=-0.26, low=-0.3, high=-0.2, n=242, base=0.5)
    monkeypatch.setattr(skills_check, "_report", lambda *_: SimpleNamespace(total=total, loses=True))
    monkeypatch.setitem(STRATEGIES, "lora", replace(STRATEGIES["lora"], repair=trains))
    checked = check_skills(run, climbed, "lora", 0.1)
    assert checked.keep == "lora" and checked.skills[0].loses
    skipped = climbed.skipped["lora_replay"]
    assert (skipped.reason, skipped.why, skipped.begun) == ("budget", NO_TIME, False)
    assert run.listener.skips == {"lora_replay": NO_TIME} and not run.listener.said


def test_skills_that_the_budget_has_no_time_for_are_told_as_not_measured(tmp_path: Path) -> None:
    run, climbed = tuned(tmp_path)
    assert NO_TIME in check_skills(run, climbed, "lora", 0.1).said

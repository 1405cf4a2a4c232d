"""Strategies that have to prove their gain, that find out that there is none, and that wait for the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import rung
from conftest import clerk, decision, events, expert, noun_of
from rung.errors import NoGain
from rung.ladder import RunOptions, run
from rung.strategies import STRATEGIES, Cost, Strategy
from rung.testing import FakeTrainable, Silent
from rung.trials.workshop import Workshop
from rung.types import Request, Solution
from small_task import write_task

RULE = "Say what you know of doors and boats."


@pytest.fixture
def named() -> Iterator[Callable[..., None]]:
    """Registers a strategy of the family prompt that builds what it is given."""
    from rung.models import OPENERS

    models, strategies = OPENERS.copy(), dict(STRATEGIES)
    rung.register_model("pupil:", lambda spec, say: FakeTrainable(_pupil, taught=clerk, name=spec))

    def register(build: Callable[[Workshop], Solution], **fields: object) -> None:
        rung.register_strategy(Strategy("stated", "prompt", "a rule", lambda texts: Cost(60), build, **fields))  # type: ignore[arg-type]

    yield register
    OPENERS[:] = models
    STRATEGIES.clear()
    STRATEGIES.update(strategies)


def _pupil(request: Request) -> str:
    """Knows half of the nouns, and all of them where it is told the rule."""
    return expert(request) if RULE in request.messages[0].content and noun_of(request) else clerk(request)


def _with_rule(workshop: Workshop) -> Solution:
    plain = workshop.solution("stated")
    return replace(plain, instruction=f"{plain.instruction}\n{RULE}")


def _as_before(workshop: Workshop) -> Solution:
    return workshop.solution("stated")


PROMPTS = ("zero_shot", "constrained", "stated")


def _run(tmp_path: Path, only: tuple[str, ...] = PROMPTS) -> tuple[Path, Silent]:
    listener = Silent()
    task = write_task(tmp_path, Path("pupil:one"), examples=200)
    return run(task, RunOptions(out=tmp_path / "run", only=only), listener), listener


def test_a_gain_that_dev_shows_makes_it_a_candidate(tmp_path: Path, named: Callable[..., None]) -> None:
    named(_with_rule, proves=True, cures=frozenset({"format", "convention"}))
    folder, _ = _run(tmp_path)
    found = decision(folder)
    assert found["solution"] == "stated" and not found["left_early"]


def test_without_a_gain_on_dev_it_is_no_candidate_and_the_verdict_says_so(
    tmp_path: Path, named: Callable[..., None]
) -> None:
    named(_as_before, proves=True)
    folder, listener = _run(tmp_path)
    found = decision(folder)
    (left,) = found["left_early"]
    assert left["name"] == "stated" and left["unproven"]
    assert left["why"] == "it is not shown to beat zero_shot on dev: it is equal to it (p = 1)"
    assert any(r.startswith("stated is no candidate: it is not shown to beat") for r in found["reasons"])
    assert next(c for c in found["candidates"] if c["name"] == "stated")["test"] is None
    assert any(line.startswith("stated is no candidate: ") for line in listener.said)


def test_a_fine_tuned_solution_has_to_be_ahead_on_dev_and_no_more(tmp_path: Path) -> None:
    from types import SimpleNamespace
    from typing import Any

    from rung.ladder.climbed import Built, Climbed
    from rung.ladder.dev_answers import compared_before, unproven
    from rung.types import Decoding, Prediction, Score

    def answers(right: int) -> tuple[Prediction, ...]:
        return tuple(Prediction(str(i), "", 1, 1, 0.1, score=float(i < right)) for i in range(20))

    def solution(name: str, adapter: str | None) -> Solution:
        return Solution(name, "Answer.", Decoding(8), adapter=adapter)

    task, metric = SimpleNamespace(seed=0), SimpleNamespace(right_or_wrong=True)
    state: Any = SimpleNamespace(name="", exhaustive=False, inputs=SimpleNamespace(groups={}, task=task))
    state.tools = SimpleNamespace(scorer=SimpleNamespace(metric=metric))

    def judged(right: int, adapter: str | None) -> str | None:
        before = Built(solution("before", adapter), answers(10), Score(0.5, 0.3, 0.7, 20))
        climbed, other = Climbed(built={"before": before}), solution("other", adapter)
        found = compared_before(state, climbed, other, answers(right))
        return unproven(state, climbed, other, answers(right), found)

    assert judged(12, "a") is None
    assert judged(10, "a") == "it is not ahead of before on dev: it is equal to it"
    assert judged(12, None) == "it is not shown to beat before on dev: it is 10 points above it (p = 0.5)"
    assert judged(18, None) is None


def test_what_it_lacked_is_read_back_by_a_later_command(tmp_path: Path, named: Callable[..., None]) -> None:
    named(_as_before, proves=True)
    folder, _ = _run(tmp_path)
    before = decision(folder)
    for name in ("decision.json", "finalists.json", "finished.json"):
        (folder / name).unlink()
    again, _ = _run(tmp_path)
    assert decision(again)["left_early"] == before["left_early"]


def test_a_strategy_that_finds_no_gain_is_skipped_with_its_number(tmp_path: Path, named: Callable[..., None]) -> None:
    def build(workshop: Workshop) -> Solution:
        raise NoGain("the teacher answers 3 of 20 known rows right")

    named(build)
    folder, _ = _run(tmp_path)
    skipped = next(s for s in decision(folder)["skipped"] if s["name"] == "stated")
    assert skipped["reason"] == "gain" and not skipped["matters"] and not skipped["begun"]
    assert skipped["why"] == "the teacher answers 3 of 20 known rows right"


def test_words_are_tried_after_the_diagnosis_and_see_it(tmp_path: Path, named: Callable[..., None]) -> None:
    seen: list[tuple[str, bool]] = []

    def build(workshop: Workshop) -> Solution:
        assert workshop.best_prompt is not None
        ids = {p.id for p in workshop.prompt_answers}
        seen.append(
            (workshop.best_prompt.name, bool(workshop.diagnosis) and ids == {e.id for e in workshop.inputs.dev})
        )
        return _with_rule(workshop)

    named(build, proves=True, cures=frozenset({"format", "convention"}))
    folder, _ = _run(tmp_path)
    done = [e["event"] for e in events(folder)]
    assert seen == [("zero_shot", True)]
    assert "diagnosed" in done and done.index("diagnosed") < max(i for i, e in enumerate(done) if e == "built")


def test_words_that_can_cure_nothing_of_what_fails_are_not_tried(tmp_path: Path, named: Callable[..., None]) -> None:
    named(_with_rule, proves=True, cures=frozenset({"format"}))
    folder, _ = _run(tmp_path)
    skipped = next(s for s in decision(folder)["skipped"] if s["name"] == "stated")
    assert skipped["reason"] == "gain" and "its causes, format, hold 0 % of the failures" in skipped["why"]

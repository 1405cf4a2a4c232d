"""Whole runs that a judge scores: held against people first, its calls in the plan, none of them paid twice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import decision, events
from rung.data.judged import Judged
from rung.errors import BudgetSpent, DataError, ModelError, RungError
from rung.ladder import RunOptions, run
from rung.report.html import write_report
from rung.testing import Silent
from rung.testing.endpoint import FakeEndpoint, ScriptedJudge
from rung.types import JudgeSpec, ModelSpec

ADJECTIVES = ("red", "old", "new", "cold", "tall", "loud", "wet", "dry")
NOUNS = ("door", "boat", "lamp", "card", "stone", "chair", "glove", "wheel", "bell", "rope", "cup", "hat")
RIGHT = {
    f"Tell me about the {a} {n}.": f"The {a} {n} is good for {len(a + n)} things, and for {n} work."
    for a in ADJECTIVES
    for n in NOUNS
}


def quality(asked: str, answer: str) -> float:
    """The share of the words of the right answer."""
    words = set(RIGHT.get(asked, "").split())
    return len(words & set(answer.split())) / max(1, len(words))


def forgetful(messages: Any, body: Any) -> str:
    """Knows most words of each answer."""
    said = messages[-1].content
    asked = next((q for q in RIGHT if q in said), "")
    chance = random.Random(asked)
    return " ".join(w for w in RIGHT.get(asked, "").split() if chance.random() < 0.6) or "nothing"


def scored(n: int, noise: float = 0.02) -> list[dict[str, Any]]:
    """Answers of any quality, with what people would give them."""
    chance, rows = random.Random(0), []
    for asked in list(RIGHT)[:n]:
        share = chance.random()
        answer = " ".join(w for w in RIGHT[asked].split() if chance.random() < share) or "nothing"
        rows.append({"input": asked, "answer": answer, "score": min(1.0, max(0.0, quality(asked, answer)))})
    return rows


def write_task(folder: Path, model: str, judge: str, people: list[dict[str, Any]], **keys: Any) -> Path:
    folder.mkdir(parents=True)
    rows = [{"input": asked, "output": answer} for asked, answer in RIGHT.items()]
    (folder / "examples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    named = {**json.loads(judge), "rubric": "It says what the thing is good for.", **keys}
    lines = ["instruction: Describe it.", "examples: examples.jsonl", "metric: judge", f"model: {model}"]
    lines.append(f"judge: {json.dumps(named)}")
    if people:
        (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in people), "utf-8")
        lines.append("judged: scores.jsonl")
    path = folder / "task.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


class Watching(Silent):
    """Counts the judge's calls at the moment when the plan is shown."""

    def __init__(self, judge: FakeEndpoint) -> None:
        super().__init__()
        self._judge, self.plan, self.before = judge, {}, -1

    def planned(self, folder: Path, plan: Any, checks: Any) -> None:  # type: ignore[override]
        self.plan, self.before = plan, len(self._judge.calls)


@contextmanager
def served(judge: ScriptedJudge) -> Iterator[tuple[FakeEndpoint, FakeEndpoint]]:
    with FakeEndpoint(forgetful, model="pupil-1") as model, FakeEndpoint(judge, model="judge-1") as scores:
        yield model, scores


def only(out: Path, **more: Any) -> RunOptions:
    return RunOptions(out=out, only=("zero_shot", "few_shot"), **more)


def test_a_judge_that_agrees_with_people_scores_the_run_and_its_errors_are_in_the_intervals(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality, likes_length=0.05, unreadable=0.05)) as (model, judge):
        listener = Watching(judge)
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        folder = run(task, only(tmp_path / "run"), listener)
    found, held = decision(folder), json.loads((folder / "judge.json").read_text())
    assert listener.before == 0  # no call before the plan
    assert held["primary"] and held["agreement"]["kappa"] > 0.8 and len(held["errors"]) == 40
    (shot,) = [c for c in found["candidates"] if c["name"] == "zero_shot"]
    lines = (folder / "solutions/zero_shot/predictions.test.jsonl").read_text().splitlines()
    raw = [json.loads(line)["score"] for line in lines]
    shift = sum(held["errors"]) / len(held["errors"])
    assert shot["test"]["mean"] == pytest.approx(sum(raw) / len(raw) + shift)
    assert any("agrees with people: kappa is" in reason for reason in found["reasons"])
    page = write_report(folder).read_text("utf-8")
    assert "The judge" in page and "Filler behind the answer" in page


def test_a_judge_that_likes_long_answers_is_found_out_and_told(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality, likes_length=0.2)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        folder = run(task, only(tmp_path / "run"), Silent())
    assert any("The judge prefers long answers" in warning for warning in decision(folder)["warnings"])


def test_a_judge_that_does_not_agree_is_secondary_and_the_verdict_says_so_first(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality, noise=2.0)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(30), fallback="rouge_l")
        listener = Silent()
        folder = run(task, only(tmp_path / "run"), listener)
    assert [s for s in listener.said if s.startswith("The judge judge-1 is secondary: kappa") and "are rouge_l." in s]
    found = decision(folder)
    assert found["warnings"][0].startswith("The judge judge-1 is secondary, by the rule that was fixed beforehand")
    assert "those of rouge_l" in found["warnings"][0] and "0.60 is asked for" in found["warnings"][0]
    assert found["warnings"][1].startswith("The judge's own means on the sealed test, beside that: zero_shot 0.")
    assert "a rouge_l of" in found["headline"]
    assert json.loads((folder / "task.json").read_text())["scored_by"] == "rouge_l"


def test_without_scored_answers_the_verdict_says_first_that_nobody_checked_the_judge(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality, likes_first=0.3)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), [], mode="pairwise")
        folder = run(task, only(tmp_path / "run"), Silent())
    assert decision(folder)["warnings"][0].startswith("The judge judge-1 was never held against people")


def test_calls_of_the_judge_are_in_the_plan_and_what_is_spent_stays_within_it(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality)) as (model, judge):
        listener = Watching(judge)
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40), samples=2)
        folder = run(task, only(tmp_path / "run"), listener)
        asked = len(judge.calls)
    plan = listener.plan
    assert plan["judge"]["calls"] == 2
    (own,) = [s for s in plan["experiments"] if s["name"] == "judge"]
    sizes = plan["sizes"]
    assert own["calls"] == 2 * (40 + 20 + 2 * (sizes["dev"] + sizes["test"]))
    (shot,) = [s for s in plan["steps"] if s["name"] == "zero_shot"]
    assert shot["calls"] == 3 * sizes["dev"]
    (event,) = [e for e in events(folder) if e["event"] == "judged"]
    assert event["calls"] == 2 * 60 <= asked <= plan["calls"]


def test_a_killed_run_asks_no_judge_twice(tmp_path: Path) -> None:
    class Dies(Silent):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.left = at

        def progress(self, *_: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    with served(ScriptedJudge(quality)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        once = run(task, only(tmp_path / "once"), Silent())
        asked = len(judge.calls)
        for at in range(1, 7):
            try:
                run(task, only(tmp_path / "killed"), Dies(at))
            except KeyboardInterrupt:
                continue
        killed = run(task, only(tmp_path / "killed"), Silent())
        kept = [json.loads(line)["key"] for line in (killed / "judge/calls.jsonl").read_text().splitlines()]
        assert judge.record.paid_again() == []
    assert len(kept) == len(set(kept))
    assert asked >= len(kept) and decision(killed)["headline"] == decision(once)["headline"]


def test_a_budget_that_cannot_hold_the_judge_against_people_is_refused(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        with pytest.raises(Exception, match="the judge cannot be held against people"):
            run(task, only(tmp_path / "run", calls=30), Silent())
        assert not judge.calls


def test_what_was_judged_before_a_kill_is_not_budgeted_again(tmp_path: Path) -> None:
    class Dies(Silent):
        def progress(self, what: str, share: float, left: float | None) -> None:
            if what.startswith("holding the judge") and share > 0:
                raise KeyboardInterrupt

    with served(ScriptedJudge(quality)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        with pytest.raises(KeyboardInterrupt):
            run(task, only(tmp_path / "run", calls=70), Dies())
        assert 0 < len(judge.calls) < 60
        with suppress(RungError):  # the rest of the run has no budget to speak of
            run(task, only(tmp_path / "run", calls=70), Silent())
    assert (tmp_path / "run/judge.json").exists()


def test_a_judge_that_gives_no_reply_is_not_held_to_be_a_bad_one(tmp_path: Path) -> None:
    from rung.evaluation.judge import judge_of
    from rung.ladder.judging import check_judge
    from rung.testing import FakeModel
    from rung.types import Answer, Query

    class Mute(FakeModel):
        def generate(self, requests: Any) -> Any:
            return [replace(g, text="", error="no reply from host (503)") for g in super().generate(requests)]

    spec = JudgeSpec(ModelSpec("judge-1", "fake:j"), "It is true.")
    task: Any = SimpleNamespace(judge=spec, models=(), seed=0)
    people = [Judged(Answer(Query(str(i), "What?"), "a door", ("a door",)), 1.0) for i in range(20)]
    mute = judge_of(spec, Mute({}), tmp_path, "")
    with pytest.raises(ModelError, match="judge-1: no reply from host"):
        check_judge(task, mute, people, (), lambda share: None)


def test_several_answers_to_one_input_are_one_error_of_the_judge(tmp_path: Path) -> None:
    from rung.evaluation.judge import judge_of
    from rung.ladder.judging import check_judge
    from rung.testing import FakeModel
    from rung.types import Answer, Query

    spec = JudgeSpec(ModelSpec("a label", json.dumps({"endpoint": "https://host/v1", "name": "gpt-9"})), "It is true.")
    own = ModelSpec("cheap", json.dumps({"endpoint": "https://host/v1", "name": "gpt-9-mini"}))
    task: Any = SimpleNamespace(judge=spec, models=(own, ModelSpec("smollm", "smollm")), seed=0)
    people = [
        Judged(Answer(Query(f"{i}", f"What is {i % 10}?"), f"door {i}", ("a door",)), float(i >= 10)) for i in range(30)
    ]
    check = check_judge(task, judge_of(spec, FakeModel(lambda r: "Score: 5"), tmp_path, ""), people, (), lambda s: None)
    assert check.errors == pytest.approx([-1 / 3] * 10) and len(check.scores) == 30
    assert check.relatives == ("cheap",), "a label hides no family"


def test_a_secondary_judge_that_cannot_be_paid_for_the_test_does_not_cost_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: Any) -> None:
        raise BudgetSpent("nothing is left")

    monkeypatch.setattr("rung.ladder.judging.beside", spent)
    with served(ScriptedJudge(quality, noise=2.0)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(30))
        folder = run(task, only(tmp_path / "run"), Silent())
    warnings = decision(folder)["warnings"]
    assert "is secondary" in warnings[0] and not any("own means" in w for w in warnings)
    assert any(e["event"] == "not checked" and e["why"] == "nothing is left" for e in events(folder))


def test_baselines_are_judged_before_the_climb_and_their_calls_are_noted(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(40))
        folder = run(task, only(tmp_path / "run"), Silent())
    noted = [e for e in events(folder) if e["event"] == "baselines judged"]
    assert [e["stage"] for e in noted] == ["baselines of dev", "baselines of test"]
    order = [e["event"] for e in events(folder)]
    assert order.index("baselines judged") < order.index("building")
    assert all(e["calls"] > 0 for e in noted)


def test_too_few_scored_answers_stop_a_run_before_anything_is_written(tmp_path: Path) -> None:
    with served(ScriptedJudge(quality)) as (model, judge):
        task = write_task(tmp_path / "task", model.spec(), judge.spec(), scored(10))
        with pytest.raises(DataError, match="only 10 scored answers"):
            run(task, only(tmp_path / "run"), Silent())
        assert not judge.calls and not (tmp_path / "run/task.json").exists()


def test_dollars_of_the_judge_are_planned_and_come_from_the_purse(tmp_path: Path) -> None:
    price = {"usd_per_million_in": 10.0, "usd_per_million_out": 10.0}
    with served(ScriptedJudge(quality)) as (model, judge):
        listener = Watching(judge)
        task = write_task(
            tmp_path / "task",
            json.dumps({**json.loads(model.spec()), "price": price}),
            judge.spec(),
            scored(40),
            price=price,
        )
        folder = run(task, only(tmp_path / "run", usd=5.0), listener)
        words = sum(c.tokens_in + c.tokens_out for c in judge.calls)
    spent = json.loads((folder / "purse.json").read_text())["usd"]
    assert listener.plan["judge"]["usd"] > 0 and spent >= words * 10 / 1e6
    (held,) = [e for e in events(folder) if e["event"] == "judged"]
    assert 0 < held["usd"] < spent <= listener.plan["usd"]


def test_a_learning_curve_is_told_on_the_scale_of_the_candidates_scores() -> None:
    from rung.decision.judging import JudgeCheck
    from rung.ladder.experiments import _curve_through
    from rung.ladder.judging import HeldJudge
    from rung.types import Example, MetricInfo

    metric = MetricInfo("judge", lambda answers: [], needs_judge=True)
    train = [Example(str(i), f"q {i}", f"a {i}", (f"a {i}",)) for i in range(40)]
    inputs = SimpleNamespace(train=train, groups={}, task=SimpleNamespace(seed=0))
    ids, scores = [str(i) for i in range(20)], [0.25, 0.75] * 10
    unjudged: Any = SimpleNamespace(
        inputs=inputs, tools=SimpleNamespace(scorer=SimpleNamespace(metric=metric)), held=None
    )
    plain = _curve_through(unjudged, [(0, scores), (10, [s + 0.25 for s in scores])], ids)
    unchecked: Any = None
    check = JudgeCheck("j", "graded", 1, "token_f1", errors=(-0.1,) * 30)
    unjudged.held = HeldJudge(unchecked, metric, check)
    told = _curve_through(unjudged, [(0, scores), (10, [s + 0.25 for s in scores])], ids)
    assert told["points"][1]["mean"] == pytest.approx(plain["points"][1]["mean"] - 0.1)
    assert told["points"][1]["low"] < plain["points"][1]["low"] - 0.1
    assert told["expected"]["mean"] == pytest.approx(plain["expected"]["mean"] - 0.1)
    assert told["more"] == plain["more"]

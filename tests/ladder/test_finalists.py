"""Which solutions are tested, which are worth checking for what they forgot, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rung.evaluation.skills import SkillsChange, SkillsReport
from rung.ladder import candidate_costs, skills_check
from rung.ladder.applies import why_not
from rung.ladder.climbed import Built, Climbed
from rung.ladder.final_test import _in_words
from rung.ladder.finalists import score_of
from rung.ladder.skills_check import Checked, hardly_shipped
from rung.models.metering import metered
from rung.records import read_json, write_json
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.testing import FakeModel
from rung.types import Candidate, Decoding, Example, Family, ModelSpec, Prediction, Price, Score, Solution

DEV = tuple(Example(f"e{i}", f"question {i}", str(i), (str(i),)) for i in range(100))


def built(name: str, mean: float, family: Family = "prompt", left: str | None = None) -> Built:
    solution = Solution(name, "Answer.", Decoding(8), adapter="a" if family == "fine-tune" else None)
    assert solution.family == family
    return Built(solution, (), Score(mean, max(0.0, mean - 0.1), min(1.0, mean + 0.1), 100), left)


def test_the_best_of_each_family_is_tested_and_never_what_was_left_early() -> None:
    solutions = [built("zero_shot", 0.3), built("few_shot", 0.3), built("lora", 0.5, "fine-tune")]
    assert Climbed(built={b.solution.name: b for b in solutions}).best_of_groups() == ["zero_shot", "lora"]
    given_up = built("few_shot", 0.9, left="after 10 of 100 dev examples")
    assert Climbed(built={"zero_shot": solutions[0], "few_shot": given_up}).best_of_groups() == ["zero_shot"]


def test_a_verdict_never_holds_the_text_of_an_endpoints_spec() -> None:
    spec = ModelSpec("gpt-5-mini", '{"endpoint": "https://host/v1", "name": "gpt-5-mini"}')
    remote: Any = SimpleNamespace(spec=spec, model=SimpleNamespace(timed=lambda requests, concurrency: []))
    assert _in_words(remote, several=False) == "gpt-5-mini"
    local: Any = SimpleNamespace(spec=ModelSpec("gemma", "/models/gemma"), model=SimpleNamespace(timed=None))
    assert (_in_words(local, several=False), _in_words(local, several=True)) == ("/models/gemma", "gemma")


@pytest.mark.parametrize(
    ("tuned", "prompt", "worth"),
    [(0.5, 0.3, True), (0.3, 0.3, False), (0.21, 0.02, True), (0.2, 0.02, False)],
    ids=["ahead", "no better than a prompt", "above the floor", "at the floor"],
)
def test_general_skills_are_checked_of_what_may_be_shipped(tuned: float, prompt: float, worth: bool) -> None:
    climbed = Climbed(built={"few_shot": built("few_shot", prompt), "lora": built("lora", tuned, "fine-tune")})
    assert (hardly_shipped(climbed, "lora", 0.2) is None) is worth


def test_what_is_no_candidate_takes_no_check_from_those_that_are() -> None:
    solutions = [built("few_shot", 0.3), built("lora", 0.5, "fine-tune")]
    taught = replace(built("distilled_lora", 0.9, "fine-tune", left="it is not shown to beat lora"), unproven=True)
    climbed = Climbed(built={b.solution.name: b for b in (*solutions, taught)})
    assert hardly_shipped(climbed, "lora", 0.2) is None
    climbed.built["distilled_lora"] = replace(taught, left=None, unproven=False)
    assert hardly_shipped(climbed, "lora", 0.2) == "far behind distilled_lora on dev"


def tuned_run(folder: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None = None) -> tuple[Any, Climbed]:
    """lora, far behind rag, that loses a quarter of its general skills where these are measured."""
    change = SkillsChange("all", 242, 0.7, 0.45, -0.25, -0.3, -0.2, 1e-9)
    monkeypatch.setattr(skills_check, "_skills_of", lambda *_: SkillsReport(change, (), loses=True))
    ahead = replace(built("rag", 0.9), solution=replace(built("rag", 0.9).solution, retriever=cast(Any, object())))
    climbed = Climbed(built={"few_shot": built("few_shot", 0.3), "lora": built("lora", 0.5, "fine-tune"), "rag": ahead})
    speed = SimpleNamespace(read=1e3, write=1e3, train=1e3)
    plan = SimpleNamespace(skills=SimpleNamespace(usd=0.0), speed=speed)
    run = run_in(folder, named=str, name="fake", plan=plan, asked=(), over_budget=lambda *_, **__: budget)
    return run, climbed


def test_lost_skills_that_were_measured_are_told_even_of_what_is_hardly_shipped_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, climbed = tuned_run(tmp_path, monkeypatch)
    monkeypatch.setattr(skills_check, "Meter", lambda *_: SimpleNamespace(record=dict))
    write_json(run.files.solution("lora") / "skills.json", {"outcomes": []})
    checked = skills_check.check_skills(run, climbed, "lora", 0.2)
    assert [(s.candidate, s.loses, s.difference) for s in checked.skills] == [("lora", True, -0.25)]
    assert climbed.skipped["lora_replay"].why == "lora is far behind rag on dev"


@pytest.mark.parametrize("budget", [None, "the budget of 15 minutes leaves no time for it"])
def test_what_kept_general_skills_from_being_measured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None
) -> None:
    run, climbed = tuned_run(tmp_path, monkeypatch, budget)
    if budget:
        del climbed.built["rag"]
    checked = skills_check.check_skills(run, climbed, "lora", 0.2)
    why = budget or "it is far behind rag on dev"
    assert checked == Checked("lora", said=f"What lora has forgotten was not measured: {why}.")


def run_in(folder: Path, **more: Any) -> Any:
    return SimpleNamespace(
        folder=folder,
        files=Files(folder),
        listener=SimpleNamespace(progress=lambda *_: None),
        model=metered(FakeModel(lambda _: "7")),
        **more,
    )


@pytest.mark.parametrize(("each", "timed"), [(0.5, 8), (2.0, 5), (30.0, 4)])
def test_slow_answers_are_timed_fewer_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: float, timed: int
) -> None:
    clock = [0.0]

    def slow(*_: object, **__: object) -> None:
        clock[0] += each

    monkeypatch.setattr("rung.solutions.answer.answer", slow)
    monkeypatch.setattr("rung.ladder.candidate_costs.time.perf_counter", lambda: clock[0])
    run = run_in(tmp_path, inputs=SimpleNamespace(dev=DEV, task=SimpleNamespace(concurrency=1)))
    candidate_costs.measure_latency(run, built("few_shot", 0.3))
    kept = read_json(tmp_path / "solutions" / "few_shot" / "latency.json") or {}
    assert kept["n"] == timed and kept["p50"] == each


def test_what_is_timed_fewer_times_is_compared_on_the_inputs_that_both_were_timed_on(tmp_path: Path) -> None:
    for name, seconds in {"few_shot": [2.2] * 4, "lora": [1.0] * 8}.items():
        write_json(tmp_path / "solutions" / name / "latency.json", {"seconds": seconds})
    state = run_in(tmp_path, price=Price(usd_per_hour=3.6))
    run: Any = SimpleNamespace(of=lambda model: state)
    solutions = {"few_shot": built("few_shot", 0.3), "lora": built("lora", 0.8, "fine-tune")}
    priced = {
        name: Candidate(name, b.family, b.dev, b.dev, 100, 5, None, None, None, 0, usd)
        for (name, b), usd in zip(solutions.items(), (0.0, 0.12), strict=True)
    }
    answers: dict[str, list[Prediction]] = {"few_shot": [], "lora": []}
    (found,) = candidate_costs.break_evens(run, answers, priced)
    assert found.saving_per_1k_usd == pytest.approx(1.2) and found.requests == pytest.approx(100)
    paid = priced | {"few_shot": replace(priced["few_shot"], build_usd=0.1)}
    assert candidate_costs.break_evens(run, answers, paid) == (found,), (
        "choosing the prompt is not paid at each training"
    )


def test_a_blind_guess_has_no_interval_where_its_rate_is_known() -> None:
    def scored(*values: float, right_or_wrong: bool = True) -> Score:
        metric = SimpleNamespace(right_or_wrong=right_or_wrong)
        wide = SimpleNamespace(score=lambda predictions: Score(sum(values) / len(values), 0.1, 0.4, len(values)))
        run: Any = SimpleNamespace(score=wide.score, tools=SimpleNamespace(scorer=SimpleNamespace(metric=metric)))
        return score_of(run, "chance", [Prediction(f"{i}", "", 0, 0, 0.0, score=v) for i, v in enumerate(values)])

    known = scored(0.25, 0.25, 0.25, 0.25)
    assert (known.low, known.high) == (0.25, 0.25)
    assert scored(0.25, 0.5).low == 0.1, "some examples accept two labels"
    assert scored(0.25, 0.25, right_or_wrong=False).low == 0.1


def test_of_what_only_leaves_out_the_reason_that_holds_anyway_is_told() -> None:
    reasons = {name: why_not(strategy, {"trainable"}, ("zero_shot",)) for name, strategy in STRATEGIES.items()}
    assert reasons["zero_shot"] == ""
    assert reasons["few_shot"] == reasons["lora"] == "left out by --only"
    assert reasons["rag"] == "the task has no corpus" and reasons["full"] == "off by default"
    assert why_not(STRATEGIES["full"], {"trainable"}, ("full",)) == ""


def test_of_two_at_the_end_of_the_scale_the_one_that_the_judge_scores_higher_goes_on() -> None:
    def judged(name: str, score: float) -> Built:
        answers = tuple(Prediction(str(i), "x", 1, 1, 0.0, score=score) for i in range(4))
        return replace(built(name, 1.0), predictions=answers)

    found = Climbed(built={"few_shot": judged("few_shot", 0.75), "zero_shot": judged("zero_shot", 1.0)})
    assert found.best() == "zero_shot"

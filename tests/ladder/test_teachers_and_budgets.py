"""A teacher beside a budget: what is counted and planned, what is not begun, what is said, and which run is meant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rung
from conftest import PRICE, SMALL, clerk, decision, events, expert, noun_of
from rung.data.task_file import read_task
from rung.errors import ModelError, NoGain, TaskError
from rung.ladder import RunOptions, run
from rung.ladder.ledger import Ledger
from rung.ladder.opening import check_prices, count_models
from rung.ladder.plan_rates import PlanRates
from rung.records import read_json
from rung.strategies import STRATEGIES, Cost, Strategy, Texts, function_of
from rung.testing import FakeModel, FakeTrainable, Silent
from rung.trials.workshop import Workshop
from rung.types import (
    Budget,
    Decoding,
    JudgeSpec,
    Message,
    MetricInfo,
    ModelSpec,
    Request,
    Solution,
    Speed,
)
from small_task import write_task

TOKENS = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}
TEACHER = {"name": "large:expert", "price": TOKENS}
SPEED = Speed(read=1e4, write=1e4, train=1e5)
RULE = "Say what you know of doors and boats."


@pytest.fixture
def registered(models: None) -> Iterator[Callable[..., None]]:
    """Registers a strategy, behind the others of its family."""
    before = dict(STRATEGIES)

    def register(name: str, family: str, build: Callable[[Workshop], Solution], **fields: Any) -> None:
        cost = fields.pop("cost", lambda texts: Cost(60))
        rung.register_strategy(Strategy(name, family, "a test", cost, build, **fields))  # type: ignore[arg-type]

    yield register
    STRATEGIES.clear()
    STRATEGIES.update(before)


def _task(folder: Path, **keys: Any) -> Path:
    return write_task(folder, Path("small:clerk"), examples=200, **keys)


def _skipped(folder: Path, name: str) -> dict[str, Any]:
    return next(s for s in decision(folder)["skipped"] if s["name"] == name)


def _never(workshop: Workshop) -> Solution:
    raise AssertionError("it is not begun")


# ---- what is counted ------------------------------------------------------------------------


def test_a_teacher_that_judges_too_is_counted_once(tmp_path: Path, models: None) -> None:
    spec = ModelSpec("large:expert", "large:expert")
    task = replace(read_task(_task(tmp_path)), teacher=spec, judge=JudgeSpec(spec, "good"))
    large = FakeModel(expert, name="large:expert", price=PRICE)
    opened = count_models(task, {task.models[0].name: FakeTrainable(clerk)}, {"teacher": large, "judge": large})
    ledger = Ledger(Budget(), opened.everybody)
    opened.helpers["teacher"].generate([Request((Message("user", "the door"),), Decoding(4))])
    assert ledger.spent.calls == 1 and len(opened.everybody) == 2


def test_a_model_that_is_called_teacher_is_counted_beside_the_teacher(tmp_path: Path, models: None) -> None:
    named = [{"name": "small:clerk", "label": "teacher"}]
    task = read_task(write_task(tmp_path, Path(), models=named, examples=48, teacher=TEACHER))
    small, large = FakeTrainable(clerk), FakeModel(expert, price=PRICE)
    opened = count_models(task, {"teacher": small}, {"teacher": large})
    assert {model.inner for model in opened.everybody} == {small, large}


def test_the_price_of_a_model_may_stand_where_it_is_named_as_the_teacher(tmp_path: Path, models: None) -> None:
    teacher = {"name": "large:other", "price": TOKENS}
    named = [SMALL, {"name": "large:other", "label": "large"}]
    path = write_task(tmp_path, Path(), models=named, examples=48, teacher=teacher, budget={"usd": 1.0})
    task, large = read_task(path), FakeModel(expert, name="large:other")
    opened = count_models(task, {"small": FakeTrainable(clerk), "large": large}, {"teacher": large})
    check_prices(task, opened)
    assert opened.counted["large"] is opened.helpers["teacher"] and opened.counted["large"].price == PRICE


def test_a_teacher_without_a_price_is_named_where_dollars_are_to_be_counted(tmp_path: Path, models: None) -> None:
    keys = {"price": {"usd_per_hour": 1.0}, "teacher": "large:other", "budget": {"usd": 1.0}}
    task = read_task(_task(tmp_path, **keys))
    opened = count_models(task, {task.models[0].name: FakeTrainable(clerk)}, {"teacher": FakeModel(expert)})
    with pytest.raises(TaskError, match="no price is known of the teacher, large-other"):
        check_prices(task, opened)


# ---- what is planned ------------------------------------------------------------------------


def test_a_teacher_that_nothing_asks_is_not_asked_for_its_speed_either(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    generate = FakeModel.generate

    def noted(self: FakeModel, requests: Any) -> Any:
        asked.extend([self.name] * len(requests))
        return generate(self, requests)

    monkeypatch.setattr(FakeModel, "generate", noted)
    folder = run(_task(tmp_path, teacher=TEACHER), RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert "large:expert" not in asked and (read_json(folder / "purse.json") or {"usd": 0.0})["usd"] == 0.0


def test_the_plan_holds_the_teachers_answers_to_dev_only_where_a_prompt_asks_for_them(
    tmp_path: Path, models: None
) -> None:
    def planned(name: str, only: tuple[str, ...]) -> list[dict[str, Any]]:
        folder = run(_task(tmp_path, teacher=TEACHER), RunOptions(out=tmp_path / name, only=only), Silent())
        steps = (read_json(folder / "plan.json") or {})["experiments"]
        return [s for s in steps if s["kind"] == "teacher" and s["applies"]]

    assert planned("with", ("zero_shot", "lora", "synth_lora"))
    assert not planned("without", ("lora", "synth_lora"))


def test_what_synthetic_rows_add_to_train_is_what_the_curve_is_read_for() -> None:
    texts = Texts(20, 2, 8, 20, 0, 0, train=100, dev=50, screen=48, training_tokens=10**7)
    rows = function_of(STRATEGIES["synth_lora"].grows or "")
    assert rows(texts) == 100 and rows(replace(texts, train=2000)) == 200 and rows(replace(texts, synthetic=9)) == 9


def test_a_teachers_thoughts_are_planned_and_not_those_of_the_model() -> None:
    texts = Texts(20, 2, 8, 20, 0, 0, train=100, dev=50, screen=48, training_tokens=10**7, thought=9)
    teacher = PlanRates(SPEED, PRICE, thought=1000)
    assert (
        PlanRates(SPEED, teacher=teacher).as_taught(texts).thought == 1000
        and PlanRates(SPEED).as_taught(texts) == texts
    )


# ---- what a budget keeps out ----------------------------------------------------------------


def test_a_teacher_whose_answers_cannot_all_be_paid_is_not_asked_and_the_verdict_says_so_first(
    tmp_path: Path, registered: Callable[..., None]
) -> None:
    needs = frozenset({"trainable", "teacher"})
    dear = lambda texts: Cost(50, sent=1e6)  # noqa: E731 - 2 USD
    registered("taught", "fine-tune", _never, needs=needs, taught=dear, proves=True)
    rung.register_model("dull:", lambda spec, say: FakeTrainable(clerk, name=spec))  # something is left to gain
    task = write_task(tmp_path, Path("dull:one"), examples=200, teacher=TEACHER, budget={"usd": 1.5})
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "lora", "taught")), Silent())
    found, skipped = decision(folder), _skipped(folder, "taught")
    plan = read_json(folder / "plan.json") or {}
    assert plan["usd"] >= 2.0 and next(s for s in plan["steps"] if s["name"] == "taught")["taught_usd"] == 2.0
    assert skipped["reason"] == "budget" and not skipped["matters"] and not skipped["begun"]
    assert found["choice"] != "unfinished" and found["test_reads"] == 1
    assert found["warnings"][0].startswith("taught (")


def test_what_has_to_prove_its_gain_leaves_no_run_unfinished_though_nothing_else_of_its_family_was_built(
    tmp_path: Path, registered: Callable[..., None]
) -> None:
    def brings_nothing(workshop: Workshop) -> Solution:
        raise NoGain("it brings nothing")

    registered("plain", "fine-tune", brings_nothing)
    registered("taught", "fine-tune", _never, cost=lambda texts: Cost(10**6), proves=True)
    task = _task(tmp_path, budget={"calls": 5000})
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "plain", "taught")), Silent())
    assert decision(folder)["choice"] != "unfinished"
    assert _skipped(folder, "taught")["reason"] == "budget" and not _skipped(folder, "taught")["matters"]


def test_named_alone_of_its_family_what_the_budget_keeps_out_does_matter(
    tmp_path: Path, registered: Callable[..., None]
) -> None:
    registered("taught", "fine-tune", _never, cost=lambda texts: Cost(10**6), proves=True)
    task = _task(tmp_path, budget={"calls": 5000})
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "taught")), Silent())
    assert decision(folder)["choice"] == "unfinished" and _skipped(folder, "taught")["matters"]


def test_no_gain_that_rests_on_the_time_that_was_planned_is_looked_for_again_with_more_time(
    tmp_path: Path, registered: Callable[..., None]
) -> None:
    asked: list[int] = []

    def build(workshop: Workshop) -> Solution:
        asked.append(workshop.limits.planned)
        raise NoGain("the training sees no more rows than those of train")

    registered("taught", "prompt", build)
    for minutes in (5, 5, 9):
        options = RunOptions(out=tmp_path / "run", only=("zero_shot", "taught"), minutes=minutes)
        folder = run(_task(tmp_path), options, Silent())
        for name in ("decision.json", "finalists.json", "finished.json"):
            (folder / name).unlink()
    assert len(asked) == 2 and asked[1] > asked[0]


# ---- words, and their part of the budget ----------------------------------------------------


def _pupil(request: Request) -> str:
    """Knows half of the nouns, and all of them where it is told the rule."""
    return expert(request) if RULE in request.messages[0].content and noun_of(request) else clerk(request)


def _with_rule(workshop: Workshop) -> Solution:
    plain = workshop.solution("stated")
    return replace(plain, instruction=f"{plain.instruction}\n{RULE}")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is found to be equally fast, but for a teacher that writes a token a second."""
    slow = replace(SPEED, write=1.0)
    monkeypatch.setattr("rung.models.speed.estimated_speed", lambda m: slow if m.name == TEACHER["name"] else SPEED)


def _words(register: Callable[..., None], taught: int, build: Callable[[Workshop], Solution]) -> None:
    """Registers words of so many tokens that the teacher writes, and the model keen:, which learns everything."""
    rung.register_model("keen:", lambda spec, say: FakeTrainable(_pupil, taught=expert, name=spec))
    cures = frozenset({"format", "convention"})
    register("stated", "prompt", build, taught=lambda texts: Cost(1, written=taught), proves=True, cures=cures)


def test_words_have_all_of_the_budget_where_no_dearer_family_can_be_tried(
    tmp_path: Path, registered: Callable[..., None], steady: None
) -> None:
    left: list[float] = []

    def build(workshop: Workshop) -> Solution:
        left.append(workshop.limits.seconds_left() or 0.0)
        return _with_rule(workshop)

    _words(registered, 1, build)
    registered("others", "prompt", _with_rule, proves=True, cures=frozenset({"format", "convention"}))
    task = write_task(tmp_path, Path("keen:one"), examples=200, teacher=TEACHER, budget={"minutes": 10})
    run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "stated", "others")), Silent())
    assert left and left[0] > 0.8 * 600


def test_words_that_were_put_off_are_weighed_again_by_what_was_built_since_then(
    tmp_path: Path, registered: Callable[..., None], steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.ladder.gains.head_room", lambda diagnosis, cures: (1.0, 1.0))  # they come first
    _words(registered, 280, _never)
    task = write_task(tmp_path, Path("keen:one"), examples=200, teacher=TEACHER, budget={"minutes": 10})
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "stated", "lora")), Silent())
    skipped = [e["why"] for e in events(folder) if e["event"] == "skipped" and e["solution"] == "stated"]
    assert skipped[0].startswith("prompts have had their 40 %") and "could gain" in skipped[-1]


# ---- which run is meant ---------------------------------------------------------------------


def test_a_run_of_a_version_that_knew_no_teacher_is_still_the_same_run(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path("small:clerk"), examples=96)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert (read_json(folder / "task.json") or {})["identity"].startswith("1b1f4dff44657bedd5f43bbb52e16a8e")


def test_how_a_judge_is_called_decides_no_score_and_what_it_is_asked_does(tmp_path: Path, models: None) -> None:
    from rung.ladder.identity import task_record_of

    task = read_task(_task(tmp_path))
    spec, versions = ModelSpec("m", "m"), {task.models[0].name: "1"}

    def identity(model: ModelSpec = spec, **keys: Any) -> str:
        judged = replace(task, metric="judge", judge=JudgeSpec(model, **{"rubric": "good", **keys}))
        metric = MetricInfo("judge", lambda answers: [])
        return str(task_record_of(judged, RunOptions(), metric, versions, {"judge": "1"})["identity"])

    assert identity() == identity(ModelSpec("other", "elsewhere/m", PRICE))
    assert len({identity(), identity(rubric="bad"), identity(samples=2), identity(fallback="rouge_l")}) == 4


def test_another_teacher_makes_what_the_first_one_taught_void_and_keeps_the_rest(
    tmp_path: Path, registered: Callable[..., None]
) -> None:
    registered("told", "prompt", _with_rule, needs=frozenset({"teacher"}), taught=lambda texts: Cost(1))
    options = {"out": tmp_path / "run", "only": ("zero_shot", "told")}
    run(_task(tmp_path, teacher=TEACHER), RunOptions(**options), Silent())  # type: ignore[arg-type]
    listener = Silent()
    task = _task(tmp_path, teacher={**TEACHER, "name": "large:better"})
    folder = run(task, RunOptions(**options, again=True), listener)  # type: ignore[arg-type]
    built = [e["solution"] for e in events(folder) if e["event"] == "built"]
    assert built.count("told") == 2 and built.count("zero_shot") == 1
    assert "Built again, because what they were built from is another: told." in listener.said
    assert (folder / "earlier" / "1" / "plan.json").is_file(), "it held how fast the first teacher was"
    assert any("what teaches beside train was changed (teacher)" in text for text in decision(folder)["warnings"])


def test_what_was_trained_on_from_a_void_solution_is_void_too(tmp_path: Path, models: None) -> None:
    from rung.ladder.again import reopen
    from rung.records import write_json

    folder = tmp_path / "run"
    before = {"model_versions": {}, "taught": {"unlabelled": {"u": "1"}}}
    write_json(folder / "task.json", before)
    write_json(folder / "solutions" / "distilled_lora" / "solution.json", {})
    write_json(folder / "solutions" / "dpo" / "training" / "course.json", {"from": "distilled_lora"})
    write_json(folder / "solutions" / "lora" / "solution.json", {})
    record = {**before, "taught": {"unlabelled": {"u": "2"}}, "home": None}
    reopen(folder, record, None, {}, {}, Silent())
    assert [path.name for path in (folder / "solutions").iterdir()] == ["lora"]


def test_what_another_teacher_spends_on_dev_is_counted_though_the_first_was_asked_there_too(tmp_path: Path) -> None:
    from rung.ladder.ledger import spent_before
    from rung.records import write_json
    from rung.runs import log

    log(tmp_path, "taught", stage="teacher", seconds=1.0, calls=10, usd=1.0)
    log(tmp_path, "reopened", void=[], added=[], taught=["teacher"])
    write_json(tmp_path / "teacher" / "spent.json", {"seconds": 2.0, "calls": 7, "usd": 0.5})
    assert spent_before(tmp_path).calls == 17


def test_synthetic_rows_of_which_none_is_left_are_an_error_before_anything_is_written(
    tmp_path: Path, models: None
) -> None:
    rows = [{"input": f"a thing {i}", "output": "red", "origin": {}, "review": "rejected"} for i in range(9)]
    (tmp_path / "synthetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(rung.errors.DataError, match=r"no synthetic row is left: .*delete synthetic:"):
        run(_task(tmp_path, synthetic="synthetic.jsonl"), RunOptions(out=tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("*.json"))


def test_a_teacher_that_does_not_exist_is_named_as_such_before_anything_is_written(
    tmp_path: Path, models: None
) -> None:
    with pytest.raises(ModelError, match=r"task\.yaml: teacher: model 'gpt-5': no catalogue name"):
        run(_task(tmp_path, teacher="gpt-5"), RunOptions(out=tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_an_end_that_is_asked_for_shortens_no_prompt_and_the_verdict_says_so(tmp_path: Path, models: None) -> None:
    long = "Answer with the colour. " + "There are three colours and no others. " * 5
    task = _task(tmp_path)
    task.write_text(task.read_text().replace("Answer with the colour.", long))
    options = {"out": tmp_path / "run", "only": ("zero_shot", "lora")}
    folder = run(task, RunOptions(**options), Silent())  # type: ignore[arg-type]
    assert any(c["name"] == "lora_short" for c in decision(folder)["candidates"])
    for path in (folder / "solutions").glob("lora_short*"):
        shutil.rmtree(path)
    for name in ("decision.json", "finalists.json", "finished.json"):
        (folder / name).unlink()
    run(task, RunOptions(**options, finish=True), Silent())  # type: ignore[arg-type]
    skipped = _skipped(folder, "lora_short")
    assert (skipped["reason"], skipped["why"]) == ("budget", "the run was ended before it") and not skipped["matters"]


def test_a_judge_that_was_exchanged_meanwhile_is_told() -> None:
    from types import SimpleNamespace as Named

    from rung.ladder.model_records import model_notes

    def model(**facts: Any) -> Any:
        return Named(facts=lambda: facts)

    judge, pupil = model(served={"judge-1": 3, "judge-2": 4}), model(served={"pupil-1": 2})
    state = Named(name="pupil", model=pupil, helpers={"judge": judge, "teacher": pupil})
    whole: Any = Named(states=(state,), first=state, recorded={}, names=("pupil",))
    (note,) = model_notes(whole)
    assert note.startswith("The judge was answered by more than one model in this run: judge-1, judge-2.")

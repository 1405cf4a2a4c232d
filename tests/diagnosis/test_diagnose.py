"""A model with exactly one trouble is diagnosed with that one, and chance with none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import pytest

from rung.diagnosis.diagnose import diagnose, worth_diagnosing
from rung.diagnosis.experiment import right_from
from rung.diagnosis.interventions import (
    INTERVENTIONS,
    THINK,
    Intervention,
    gold_retriever,
    register_intervention,
    thinking,
)
from rung.diagnosis.label_noise import conflicts
from rung.diagnosis.lenient import yardstick
from rung.diagnosis.placebo import OwnSeeds, samples
from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.retrieval.bm25 import BM25
from rung.retrieval.library import SearchedBy
from rung.solutions.answer import answer
from rung.testing import FakeModel
from rung.trials.trial import InOrder
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import (
    Constraint,
    Decoding,
    Demo,
    DemoSelection,
    Document,
    Example,
    ModelSpec,
    Prediction,
    Query,
    Request,
    RetrieverSpec,
    Solution,
    Task,
)

Answers = Callable[[Request], str]
NAMES = [f"{a}{b}{c}" for a in "bdfgk" for b in ("al", "er", "on", "um") for c in ("ta", "ri", "mo", "ne", "sk")]
EXAMPLES = tuple(Example(f"e{i}", f"who keeps lodge {i}", NAMES[i], (NAMES[i],), row=f"line {i}") for i in range(100))
PASSAGES = tuple(Document(f"p{i}", f"In lodge {i} the keeper {NAMES[i]} is at home.") for i in range(100))
FEW = 8
"""Every so-many-th example is answered right, whatever is changed."""


def number(request: Request) -> int:
    return int(request.messages[-1].content.split()[-1])


def right(request: Request) -> str:
    return NAMES[number(request)]


def wrong(request: Request) -> str:
    return "zeltuna"


def troubled(rest: Answers) -> Answers:
    """Answers a few examples right in any case, the others as `rest` does."""
    return lambda request: right(request) if number(request) % FEW == 0 else rest(request)


def workshop_of(folder: Path, answers: Answers, **more: Any) -> Workshop:
    task = Task(
        "t",
        folder / "task.yaml",
        "Name the keeper.",
        (),
        more.pop("metric", "exact_match"),
        (ModelSpec("fake", "fake"),),
    )
    task = replace(task, labels=more.pop("labels", None))
    model: Any = FakeModel(answers)
    retriever = more.pop("retriever", None)
    inputs = Inputs(
        task=task,
        train=more.pop("train", EXAMPLES[:50]),
        dev=more.pop("dev", EXAMPLES[50:]),
        constraint=Constraint("labels", task.labels) if task.labels else None,
        library=SearchedBy(more.pop("passages", ()), retriever),
    )
    assert not more
    tools = Tools(model, Scorer(load_metric(task.metric, folder)), InOrder())
    return Workshop(inputs, tools, Limits(), folder / "solution", Decoding(24))


def with_model(workshop: Workshop, model: Any) -> Workshop:
    return replace(workshop, tools=replace(workshop.tools, model=model))


def predict(workshop: Workshop, base: Solution) -> list[Prediction]:
    dev, tools = workshop.inputs.dev, workshop.tools
    found = answer(base, tools.model, [e.query for e in dev], retriever=workshop.retriever_of(base))
    return [
        replace(p, score=0.0 if p.error else tools.scorer.one(p.text, e.references))
        for p, e in zip(found, dev, strict=True)
    ]


def diagnosed(folder: Path, answers: Answers, *, base: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    workshop = workshop_of(folder, answers, **more)
    solution = replace(workshop.solution("zero_shot"), **(base or {}))
    return diagnose(workshop, solution, predict(workshop, solution), folder / "diagnosis", most=32)


def causes(record: dict[str, Any]) -> list[Any]:
    """What the experiments of one record say, each by itself: causes with a share, the largest first."""
    joint = [{**pair, "cause": "+".join(pair["causes"])} for pair in record["combinations"]]
    rows = [SimpleNamespace(**row) for row in (*record["causes"], *joint) if row["share"] > 0]
    return sorted(rows, key=lambda row: -row.share)


def with_corpus() -> dict[str, Any]:
    return {"passages": PASSAGES, "retriever": BM25(PASSAGES)}


def marked(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    return tuple(replace(e, gold_ids=(e.id.replace("e", "p"),)) for e in examples)


# ---- one trouble each -----------------------------------------------------------------------


def test_right_content_in_the_wrong_shape_is_format(tmp_path: Path) -> None:
    record = diagnosed(tmp_path, troubled(lambda r: f"Surely the keeper of that one is {right(r)}, as I know."))
    assert [c.cause for c in causes(record)] == ["format"]
    assert causes(record)[0].share == 1.0 and causes(record)[0].low > 0.7 and record["unresolved"]["share"] == 0.0


def test_labels_met_only_under_the_constraint_are_format(tmp_path: Path) -> None:
    labels = ("red", "green", "blue")
    rows = tuple(replace(e, output=labels[i % 3], references=(labels[i % 3],)) for i, e in enumerate(EXAMPLES))

    def answers(request: Request) -> str:
        return labels[number(request) % 3] if request.constraint else "It is some shade or other"

    record = diagnosed(tmp_path, answers, labels=labels, metric="label_accuracy", train=rows[:50], dev=rows[50:])
    assert causes(record)[0].cause == "format" and causes(record)[0].share == 1.0


def test_a_constraint_is_no_cure_for_a_wrong_label(tmp_path: Path) -> None:
    """The base names a label already; what the constraint changes then is content, not shape."""
    labels = ("red", "green", "blue")
    rows = tuple(replace(e, output=labels[i % 3], references=(labels[i % 3],)) for i, e in enumerate(EXAMPLES))

    def answers(request: Request) -> str:
        return labels[number(request) % 3] if request.constraint else labels[(number(request) + 1) % 3]

    record = diagnosed(tmp_path, answers, labels=labels, metric="label_accuracy", train=rows[:50], dev=rows[50:])
    assert "format" not in [c.cause for c in causes(record)]


@pytest.mark.parametrize("gold", [True, False], ids=["marked", "found by the answer"])
def test_what_is_known_only_with_the_passage_is_knowledge(tmp_path: Path, gold: bool) -> None:
    def answers(request: Request) -> str:
        return right(request) if f"keeper {right(request)} " in request.messages[-1].content else wrong(request)

    dev = marked(EXAMPLES[50:]) if gold else EXAMPLES[50:]
    record = diagnosed(tmp_path, troubled(answers), dev=dev, **with_corpus())
    assert [c.cause for c in causes(record)] == ["knowledge"] and causes(record)[0].share == 1.0


def test_a_fact_in_a_sentence_is_knowledge_and_format_together(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        shown = f"keeper {right(request)} " in request.messages[-1].content
        return f"I read there that it must be {right(request)}" if shown else wrong(request)

    record = diagnosed(tmp_path, troubled(answers), dev=marked(EXAMPLES[50:]), **with_corpus())
    assert [(c.cause, c.share) for c in causes(record)] == [("knowledge+format", 1.0)]
    assert [(c["causes"], c["share"]) for c in record["combinations"]] == [(["knowledge", "format"], 1.0)]


def test_passages_that_the_search_misses_are_retrieval(tmp_path: Path) -> None:
    class Misses:
        def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
            return [[Document("none", "Nothing of the kind.")] for _ in queries]

    def answers(request: Request) -> str:
        return right(request) if f"keeper {right(request)} " in request.messages[-1].content else wrong(request)

    more = {"passages": PASSAGES, "retriever": Misses(), "dev": marked(EXAMPLES[50:])}
    record = diagnosed(tmp_path, troubled(answers), base={"retriever": RetrieverSpec("bm25", 3, 600)}, **more)
    assert [c.cause for c in causes(record)] == ["retrieval"]


def test_guesses_without_a_corpus_are_a_sign_of_missing_knowledge_and_said_to_be_no_more(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return f"guess{request.decoding.seed}"

    record = diagnosed(tmp_path, troubled(answers))
    (cause,) = causes(record)
    assert cause.cause == "knowledge" and cause.share == 1.0
    assert "no proof" in record["causes"][0]["evidence"] and record["unresolved"]["share"] == 1.0


def test_guesses_at_what_the_input_holds_are_no_sign_of_missing_knowledge(tmp_path: Path) -> None:
    rows = tuple(replace(e, input=f"{e.output} or not {e.input}") for e in EXAMPLES)
    record = diagnosed(tmp_path, troubled(lambda r: f"guess{r.decoding.seed}"), dev=rows[50:])
    assert causes(record) == [] and record["derivable"]["share"] == 1.0


def test_a_model_that_follows_only_demos_lacks_the_convention(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return right(request) if any(m.role == "assistant" for m in request.messages) else wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    assert [c.cause for c in causes(record)] == ["convention"]


def test_nearest_demos_are_not_tried_on_a_base_that_has_them(tmp_path: Path) -> None:
    base = {"demos": (Demo("a", "b"),) * 9, "demo_selection": DemoSelection("nearest", 8)}
    record = diagnosed(tmp_path, troubled(wrong), base=base)
    assert "already" in record["interventions"]["convention"]["skipped"]


def test_a_model_that_is_right_in_most_samples_is_inconsistent(tmp_path: Path) -> None:
    """Its likeliest answer is wrong; the right one has many wordings' worth of chance, which warmth brings out."""

    def answers(request: Request) -> str:
        temperature = request.decoding.temperature
        drawn = random.Random(f"{request.decoding.seed} {number(request)}").random()
        return right(request) if drawn < {0.0: 0.0, 0.3: 0.2, 0.7: 0.8}[temperature] else wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    (cause,) = causes(record)
    rates = record["interventions"]
    assert cause.cause == "inconsistency" and cause.low > 0.3
    assert cause.share == pytest.approx(rates["inconsistency"]["rescue_rate"] - rates["placebo"]["rescue_rate"])
    failed = [row for row in record["examples"] if row["failed"]]
    assert mean(row["samples_right"] for row in failed) == pytest.approx(0.8, abs=0.1)


def test_one_right_sample_among_different_ones_is_no_majority(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        drawn = random.Random(f"{request.decoding.seed} {number(request)}").random()
        lucky = request.decoding.temperature == 0.7 and drawn < 0.3
        return right(request) if lucky else f"guess{request.decoding.seed}"

    rows = [row for row in diagnosed(tmp_path, troubled(answers))["examples"] if row["failed"]]
    shares = {
        outcome: {r["samples_right"] for r in rows if r["outcomes"]["inconsistency"] is outcome}
        for outcome in (True, False)
    }
    assert min(shares[True]) == 0.4 and max(shares[False]) == 0.2


def test_a_model_that_is_right_only_after_thinking_fails_at_reasoning(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        thinks = THINK in request.messages[0].content and request.decoding.max_new_tokens >= 90
        return f"{'step ' * 60}\nAnswer: {right(request)}" if thinks else wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    assert [c.cause for c in causes(record)] == ["reasoning"] and causes(record)[0].share == 1.0


def test_conflicting_rows_are_listed_as_label_noise(tmp_path: Path) -> None:
    twins = tuple(replace(e, id=f"t{e.id}", output="qux", references=("qux",)) for e in EXAMPLES[51:56])
    record = diagnosed(tmp_path, troubled(wrong), train=(*EXAMPLES[:50], *twins))
    noise = next(c for c in record["causes"] if c["cause"] == "label noise")
    assert {i for pair in record["label_noise"] for i in pair["ids"]} == {
        *(e.id for e in EXAMPLES[51:56]), *(t.id for t in twins)
    }  # fmt: skip
    assert set(noise["ids"]) <= {e.id for e in EXAMPLES[51:56]} and noise["share"] > 0
    assert record["label_noise"][0]["rows"] == ["line 51", "line 51"]


def test_one_template_filled_in_twice_is_no_conflict(tmp_path: Path) -> None:
    scorer = Scorer(load_metric("exact_match", tmp_path))
    assert conflicts(EXAMPLES, yardstick(scorer, 1.0, None, EXAMPLES)) == []


def test_the_same_words_in_another_order_with_another_answer_are_a_conflict(tmp_path: Path) -> None:
    rows = (Example("a", "well played and good", "x", ("x",)), Example("b", "good and well played", "y", ("y",)))
    by = yardstick(Scorer(load_metric("exact_match", tmp_path)), 1.0, None, rows)
    assert [pair["ids"] for pair in conflicts(rows, by)] == [["a", "b"]]
    agreeing = (rows[0], replace(rows[1], references=("y", "x")))
    assert conflicts(agreeing, by) == []


def test_of_known_near_duplicates_those_that_ask_the_same_and_are_at_hand_are_conflicts(tmp_path: Path) -> None:
    asked = "one thing that we would like to know about the card"
    rows = (
        Example("a", asked, "x", ("x",)),
        Example("b", f"{asked} now", "y", ("y",)),
        Example("c", "quite another", "z", ("z",)),
    )
    by = yardstick(Scorer(load_metric("exact_match", tmp_path)), 1.0, None, rows)
    known = [("a", "b"), ("a", "c"), ("a", "of the test")]
    assert [pair["ids"] for pair in conflicts(rows, by, known)] == [["a", "b"]]
    assert conflicts(rows, by, []) == []


# ---- chance ---------------------------------------------------------------------------------


def test_rescue_by_chance_is_subtracted(tmp_path: Path) -> None:
    """A model that draws a label anew for each prompt is rescued often, and net of the placebo by nothing."""
    labels = ("red", "green", "blue")
    rows = tuple(replace(e, output=labels[i % 3], references=(labels[i % 3],)) for i, e in enumerate(EXAMPLES))
    raw: list[float] = []
    net: dict[str, list[float]] = {}
    clear = 0
    for trial in range(12):

        def answers(request: Request, trial: int = trial) -> str:
            prompt = " ".join(m.content for m in request.messages)
            how = request.decoding
            draw = f"{trial} {how.max_new_tokens} {how.temperature} {how.seed} {prompt}"
            return random.Random(draw).choice(labels)

        record = diagnosed(
            tmp_path / str(trial), answers, labels=labels, metric="label_accuracy", train=rows[:50], dev=rows[50:]
        )
        raw.append(record["interventions"]["convention"]["rescue_rate"])
        for cause in record["causes"]:
            if cause["net_of_placebo"]:
                net.setdefault(cause["cause"], []).append(cause["share"])
                clear += cause["low"] > 0
    assert mean(raw) > 0.25
    assert set(net) == {"format", "inconsistency", "convention", "reasoning"}
    assert all(abs(mean(shares)) < 0.1 for shares in net.values()), net
    assert clear <= 3, "of 48 intervals, about one in forty lies above zero by chance"


def test_what_an_intervention_breaks_is_recorded(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        if number(request) % 2:
            return wrong(request)
        return right(request) if len(request.messages) == 2 else wrong(request)  # demos confuse it

    record = diagnosed(tmp_path, answers)
    assert record["interventions"]["convention"]["break_rate"] == 1.0
    assert record["interventions"]["placebo"]["break_rate"] == 0.0
    assert record["succeeded"] == 16, "half as many as failed ones may be"


def test_each_prompt_is_sampled_with_a_seed_of_its_own_that_stays_the_same(tmp_path: Path) -> None:
    workshop = workshop_of(tmp_path, right)
    model: Any = workshop.tools.model
    drawn = samples(workshop.solution("s"))
    seeded = OwnSeeds(model, workshop.solution("s").decoding.seed)
    for solution in (*drawn, drawn[0], workshop.solution("greedy")):
        answer(solution, seeded, [e.query for e in EXAMPLES[:10]])
    seeds = [r.decoding.seed for r in model.requests]
    assert len(set(seeds[:50])) == 50, "all samples of a prompt are drawn together, each once"
    assert set(seeds[50:]) == {0} and len(seeds) == 60
    answer(drawn[0], OwnSeeds(model, 0), [EXAMPLES[0].query])
    assert [r.decoding.seed for r in model.requests[60:]] == seeds[:5]


def test_a_real_model_goes_the_same_way_twice(tmp_path: Path, tiny: Any) -> None:
    workshop = replace(with_model(workshop_of(tmp_path, right, **with_corpus()), tiny), decoding=Decoding(6))
    base = workshop.solution("zero_shot")
    predictions = predict(workshop, base)
    first = diagnose(workshop, base, predictions, tmp_path / "a", most=6)
    assert first == diagnose(workshop, base, predictions, tmp_path / "b", most=6)
    assert first["failed"] == 6 and first["poor"]
    assert any(row["samples_distinct"] > 1 for row in first["examples"])


# ---- the edges ------------------------------------------------------------------------------


def test_a_base_too_poor_to_intervene_on_is_said_to_be(tmp_path: Path) -> None:
    assert diagnosed(tmp_path / "a", wrong)["poor"] is True
    assert diagnosed(tmp_path / "b", troubled(wrong))["poor"] is False, "an eighth of dev is right"


def test_a_base_with_nothing_right_that_an_intervention_fixes_is_not_poor(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return right(request) if f"keeper {right(request)} " in request.messages[-1].content else wrong(request)

    record = diagnosed(tmp_path, answers, dev=marked(EXAMPLES[50:]), **with_corpus())
    assert record["dev"]["right"] == 0.0 and record["poor"] is False


def test_where_nothing_failed_nothing_is_asked(tmp_path: Path) -> None:
    workshop = workshop_of(tmp_path, right)
    base = workshop.solution("zero_shot")
    predictions = predict(workshop, base)
    model: Any = workshop.tools.model
    before = len(model.requests)
    record = diagnose(workshop, base, predictions, tmp_path / "d")
    assert record["failed"] == 0 and causes(record) == [] and not record["poor"] and len(model.requests) == before


def test_failed_calls_are_counted_and_not_diagnosed(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        if number(request) in (51, 52):
            raise ValueError("no room")
        return wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    assert record["dev"]["errors"] == 2
    assert not {"e51", "e52"} & {row["id"] for row in record["examples"]}


def test_answers_that_break_their_constraint_are_diagnosed(tmp_path: Path) -> None:
    workshop = workshop_of(tmp_path, troubled(lambda request: f"It is {right(request)}."))
    base = workshop.solution("zero_shot")
    broken = [
        replace(p, error="the answer breaks pattern: it does not match") if p.score == 0 else p
        for p in predict(workshop, base)
    ]
    record = diagnose(workshop, base, broken, tmp_path / "d", most=32)
    assert record["dev"]["errors"] == 0 and record["failed"] == 32
    assert causes(record)[0].cause == "format"


def test_killed_anywhere_and_continued_it_ends_in_the_same_record(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return random.Random(f"{request}").choice([right(request), "guess", wrong(request)])

    whole = workshop_of(tmp_path, answers, **with_corpus())
    base = whole.solution("zero_shot")
    predictions = predict(whole, base)
    expected = diagnose(whole, base, predictions, tmp_path / "whole")
    model: Any = whole.tools.model
    calls = len(model.calls) - 1  # without the one that answered dev
    assert calls == 5
    for dies_at in range(calls):
        left = [dies_at]

        class Dies(FakeModel):
            def generate(self, requests: Any) -> Any:
                if left[0] == 0:  # noqa: B023
                    raise KeyboardInterrupt
                left[0] -= 1  # noqa: B023
                return super().generate(requests)

        folder = tmp_path / f"killed-{dies_at}"
        mortal: Any = Dies(answers)
        with pytest.raises(KeyboardInterrupt):
            diagnose(with_model(whole, mortal), base, predictions, folder)
        again: Any = FakeModel(answers)
        assert diagnose(with_model(whole, again), base, predictions, folder) == expected
        assert len(again.calls) == calls - dies_at, "what was answered is not answered again"


def test_the_record_is_plain_and_holds_every_example(tmp_path: Path) -> None:
    record = diagnosed(tmp_path, troubled(wrong), **with_corpus())
    assert json.loads(json.dumps(record)) == record
    assert len(record["examples"]) == record["failed"] + record["succeeded"]
    outcomes = record["examples"][0]["outcomes"]
    assert {"lenient", "placebo", "inconsistency", "convention", "knowledge", "reasoning"} <= set(outcomes)


def test_graded_answers_are_right_from_a_half(tmp_path: Path) -> None:
    assert right_from(load_metric("token_f1", tmp_path)) == 0.5
    assert right_from(load_metric("exact_match", tmp_path)) == 1.0


def test_a_prompt_that_is_right_in_none_of_forty_is_not_worth_diagnosing(tmp_path: Path) -> None:
    metric = load_metric("exact_match", tmp_path)

    def scored(right: int, wrong: int, error: str | None = None) -> list[Prediction]:
        scores = [1.0] * right + [0.0] * wrong
        return [Prediction(str(i), "", 1, 1, 0.1, score=s, error=error) for i, s in enumerate(scores)]

    assert not worth_diagnosing(scored(0, 40), metric)
    assert worth_diagnosing(scored(1, 39), metric)
    assert worth_diagnosing(scored(0, 39), metric), "too few to say so"
    assert worth_diagnosing(scored(0, 40, error="no room"), metric), "calls that failed are no wrong answers"


def test_thinking_takes_off_what_forbids_it(tmp_path: Path) -> None:
    workshop = workshop_of(tmp_path, right)
    base = replace(
        workshop.solution("s"),
        constraint=Constraint("labels", ("a", "b")),
        demos=(Demo("i", "o"),),
        demo_selection=DemoSelection("fixed", 1),
    )
    changed = thinking(base, workshop)
    assert isinstance(changed, Solution)
    assert changed.constraint is None and not changed.demos and changed.decoding.max_new_tokens == 96


# ---- gold passages --------------------------------------------------------------------------


def gold_of(workshop: Workshop, *examples: Example) -> dict[str, list[str]]:
    """Example id -> ids of the passages that the intervention brings it."""
    retriever, known = gold_retriever(examples, workshop)
    found = retriever.search([e.query for e in known], 3)
    return {e.id: [p.id for p in row] for e, row in zip(known, found, strict=True)}


def test_marked_passages_go_before_ranked_ones_and_labels_mark_nothing(tmp_path: Path) -> None:
    workshop = workshop_of(tmp_path, right, **with_corpus())
    elsewhere = replace(EXAMPLES[61], gold_ids=("p62", "p63"))
    gold = gold_of(workshop, EXAMPLES[60], elsewhere)
    assert gold == {"e60": ["p60"], "e61": ["p62", "p63"]}
    labelled = workshop_of(tmp_path, right, labels=tuple(NAMES), **with_corpus())
    assert gold_of(labelled, EXAMPLES[60]) == {}


def test_two_examples_with_one_input_keep_their_own_passages(tmp_path: Path) -> None:
    twins = tuple(replace(EXAMPLES[60], id=f"twin{i}", gold_ids=(f"p{i}",)) for i in (70, 80))
    assert gold_of(workshop_of(tmp_path, right, **with_corpus()), *twins) == {"twin70": ["p70"], "twin80": ["p80"]}


# ---- registered from outside ----------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[None]:
    """The registry as it was, after the test."""
    before = dict(INTERVENTIONS)
    yield
    INTERVENTIONS.clear()
    INTERVENTIONS.update(before)


def in_capitals(base: Solution, workshop: Workshop) -> Solution:
    return replace(base, instruction=base.instruction.upper())


@pytest.mark.usefixtures("registry")
def test_an_intervention_from_outside_stands_in_the_record_with_a_share_of_its_cause(tmp_path: Path) -> None:
    register_intervention(Intervention("shouting", "politeness", "instruction", "capital letters", in_capitals))

    def answers(request: Request) -> str:
        return right(request) if request.messages[0].content.isupper() else wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    row = record["interventions"]["shouting"]
    assert row["changes"] == "instruction" and row["cause"] == "politeness" and row["rescue_rate"] == 1.0
    assert [(c.cause, c.share, c.evidence) for c in causes(record)] == [("politeness", 1.0, "fixed by capital letters")]


@pytest.mark.usefixtures("registry")
def test_an_intervention_says_itself_how_its_answers_are_read(tmp_path: Path) -> None:
    shouting = Intervention("shouting", "politeness", "instruction", "capital letters", in_capitals)
    register_intervention(replace(shouting, reading=lambda text: text.split()[-1].strip("<>")))

    def answers(request: Request) -> str:
        return f"it must be <{right(request)}>" if request.messages[0].content.isupper() else wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    assert record["interventions"]["shouting"]["rescue_rate"] == 1.0


@pytest.mark.parametrize(("name", "changes"), [("placebo", "demos"), ("mine", "temperature")])
def test_an_intervention_with_a_name_of_the_room_or_a_field_that_is_none_is_refused(name: str, changes: str) -> None:
    with pytest.raises(ValueError, match=f"{name}|{changes}"):
        register_intervention(Intervention(name, "x", changes, "x", in_capitals))


def test_the_order_in_which_trials_run_plays_no_part(tmp_path: Path) -> None:
    class Backwards(InOrder):
        def map(self, work: Any, trials: Any) -> list[list[Prediction]]:
            return list(reversed(super().map(work, list(reversed(trials)))))

    def answers(request: Request) -> str:
        return random.Random(f"{request}").choice([right(request), wrong(request)])

    workshop = workshop_of(tmp_path, answers, **with_corpus())
    other = replace(workshop, tools=replace(workshop.tools, executor=Backwards()))
    base = workshop.solution("zero_shot")
    predictions = predict(workshop, base)
    one = diagnose(workshop, base, predictions, tmp_path / "a")
    assert one == diagnose(other, base, predictions, tmp_path / "b")


# ---- harm -----------------------------------------------------------------------------------


def test_what_breaks_every_right_answer_is_evidence_for_no_cause(tmp_path: Path) -> None:
    """Demos turn every answer around: the wrong ones become right, and the right ones wrong."""

    def answers(request: Request) -> str:
        demos = any(m.role == "assistant" for m in request.messages)
        return right(request) if (number(request) % 4 == 0) != demos else wrong(request)

    record = diagnosed(tmp_path, answers)
    row = record["interventions"]["convention"]
    assert row["rescue_rate"] == 1.0 and row["break_rate"] == 1.0 and row["harmful"] is True
    assert "convention" not in {c["cause"] for c in record["causes"]}
    assert record["unresolved"]["share"] == 1.0 and not any(r["causes"] for r in record["examples"])
    assert record["interventions"]["placebo"]["harmful"] is False


def test_what_the_placebo_breaks_as_well_is_not_held_against_the_format(tmp_path: Path) -> None:
    """The constraint breaks half of the right labels, and so does another sample of the old prompt."""
    labels = ("red", "green", "blue")
    rows = tuple(replace(e, output=labels[i % 3], references=(labels[i % 3],)) for i, e in enumerate(EXAMPLES))

    def answers(request: Request) -> str:
        n = number(request)
        again = request.constraint is not None or request.decoding.temperature > 0
        if n % 2 and request.constraint is None:
            return "It is some shade or other"
        return labels[(n + 1) % 3] if again and n % 4 == 0 else labels[n % 3]

    record = diagnosed(tmp_path, answers, labels=labels, metric="label_accuracy", train=rows[:50], dev=rows[50:])
    rates = record["interventions"]
    assert 0.3 < rates["constraint"]["break_rate"] == rates["placebo"]["break_rate"] < 0.7
    assert next(c["share"] for c in record["causes"] if c["cause"] == "format") == 1.0


def test_what_two_changes_fix_together_is_not_unresolved(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        shown = f"keeper {right(request)} " in request.messages[-1].content
        return f"I read there that it must be {right(request)}" if shown else wrong(request)

    record = diagnosed(tmp_path, troubled(answers), dev=marked(EXAMPLES[50:]), **with_corpus())
    assert record["combinations"][0]["share"] == 1.0
    assert record["unresolved"]["share"] == 0.0 and record["unresolved"]["ids"] == []


def test_a_constraint_is_asked_of_no_answer_that_has_the_shape_already(tmp_path: Path) -> None:
    labels = ("red", "green", "blue")
    rows = tuple(replace(e, output=labels[i % 3], references=(labels[i % 3],)) for i, e in enumerate(EXAMPLES))
    more = {"labels": labels, "metric": "label_accuracy", "train": rows[:50], "dev": rows[50:]}
    record = diagnosed(tmp_path, lambda r: "red", **more)
    assert "none of the wrong answers" in record["interventions"]["constraint"]["skipped"]
    assert not (tmp_path / "diagnosis" / "constraint.jsonl").exists()

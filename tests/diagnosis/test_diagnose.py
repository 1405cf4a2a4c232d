"""A model with exactly one trouble is found to have that one; chance is found to be nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from rung.diagnosis.diagnose import causes, conflicting, diagnose, right_from
from rung.diagnosis.interventions import THINK, GoldRetriever, OwnSeeds, gold_passages, samples, thinking
from rung.diagnosis.lenient import yardstick
from rung.evaluation.metrics import load_metric
from rung.retrieval.bm25 import BM25
from rung.solutions.answer import answer
from rung.trials.workshop import Materials
from rung.strategies.retrieving import spec
from rung.testing import FakeModel
from rung.types import Constraint, Decoding, Demo, DemoSelection, Document, Example, Prediction, Request, Solution, Task

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


def materials_of(folder: Path, answers: Answers, **more: Any) -> Materials:
    task = Task("t", folder / "task.yaml", "Name the keeper.", (), more.pop("metric", "exact_match"), "fake")
    task = replace(task, labels=more.pop("labels", None))
    model: Any = FakeModel(answers)
    return Materials(
        task=task,
        train=more.pop("train", EXAMPLES[:50]),
        dev=more.pop("dev", EXAMPLES[50:]),
        model=model,
        metric=load_metric(task.metric, folder),
        folder=folder / "solution",
        decoding=Decoding(24),
        constraint=Constraint("labels", task.labels) if task.labels else None,
        **more,
    )


def predict(materials: Materials, base: Solution) -> list[Prediction]:
    found = answer(base, materials.model, [e.query for e in materials.dev], retriever=materials.retriever)
    return [
        replace(p, score=0.0 if p.error else materials.metric(p.text, e.references))
        for p, e in zip(found, materials.dev, strict=True)
    ]


def diagnosed(folder: Path, answers: Answers, *, base: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    materials = materials_of(folder, answers, **more)
    solution = replace(materials.solution("zero_shot"), **(base or {}))
    return diagnose(materials, solution, predict(materials, solution), folder / "diagnosis", most=32)


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


def test_a_fact_told_in_a_sentence_is_knowledge_and_format_together(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        shown = f"keeper {right(request)} " in request.messages[-1].content
        return f"I read there that it must be {right(request)}" if shown else wrong(request)

    record = diagnosed(tmp_path, troubled(answers), dev=marked(EXAMPLES[50:]), **with_corpus())
    assert [(c.cause, c.share) for c in causes(record)] == [("knowledge+format", 1.0)]
    assert [(c["causes"], c["share"]) for c in record["combinations"]] == [(["knowledge", "format"], 1.0)]


def test_passages_that_the_search_misses_are_retrieval(tmp_path: Path) -> None:
    class Misses:
        def search(self, queries: Any, k: int) -> list[list[Document]]:
            return [[Document("none", "Nothing of the kind.")] for _ in queries]

    def answers(request: Request) -> str:
        return right(request) if f"keeper {right(request)} " in request.messages[-1].content else wrong(request)

    more = {"passages": PASSAGES, "retriever": Misses(), "dev": marked(EXAMPLES[50:])}
    record = diagnosed(tmp_path, troubled(answers), base={"retriever": spec(3)}, **more)
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
    assert causes(record) == () and record["derivable"]["share"] == 1.0


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
    materials = materials_of(tmp_path, wrong)
    assert conflicting(materials, yardstick(materials.metric, 1.0, None, materials.train)) == []


def test_the_same_words_in_another_order_with_another_answer_are_a_conflict(tmp_path: Path) -> None:
    rows = (Example("a", "well played and good", "x", ("x",)), Example("b", "good and well played", "y", ("y",)))
    materials = materials_of(tmp_path, wrong, train=rows)
    found = conflicting(materials, yardstick(materials.metric, 1.0, None, rows))
    assert [pair["ids"] for pair in found] == [["a", "b"]]


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
            return random.Random(f"{trial} {request.decoding} {prompt}").choice(labels)

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
    materials = materials_of(tmp_path, right)
    model: Any = materials.model
    drawn = samples(materials.solution("s"))
    seeded = OwnSeeds(model, materials.solution("s").decoding.seed)
    for solution in (*drawn, drawn[0], materials.solution("greedy")):
        answer(solution, seeded, [e.query for e in EXAMPLES[:10]])
    seeds = [r.decoding.seed for r in model.requests]
    assert len(set(seeds[:50])) == 50, "all samples of a prompt are drawn together, each once"
    assert set(seeds[50:]) == {0} and len(seeds) == 60
    answer(drawn[0], OwnSeeds(model, 0), [EXAMPLES[0].query])
    assert [r.decoding.seed for r in model.requests[60:]] == seeds[:5]


def test_a_real_model_goes_the_same_way_twice(tmp_path: Path, tiny: Any) -> None:
    materials = replace(materials_of(tmp_path, right, **with_corpus()), model=tiny, decoding=Decoding(6))
    base = materials.solution("zero_shot")
    predictions = predict(materials, base)
    first = diagnose(materials, base, predictions, tmp_path / "a", most=6)
    assert first == diagnose(materials, base, predictions, tmp_path / "b", most=6)
    assert first["failed"] == 6 and first["poor"]
    assert any(row["samples_distinct"] > 1 for row in first["examples"])


# ---- the edges ------------------------------------------------------------------------------


def test_a_base_too_poor_to_intervene_on_is_said_to_be(tmp_path: Path) -> None:
    assert diagnosed(tmp_path / "a", wrong)["poor"] is True
    assert diagnosed(tmp_path / "b", troubled(wrong))["poor"] is False, "an eighth of dev is right"


def test_a_base_with_nothing_right_that_an_intervention_mends_is_not_poor(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return right(request) if f"keeper {right(request)} " in request.messages[-1].content else wrong(request)

    record = diagnosed(tmp_path, answers, dev=marked(EXAMPLES[50:]), **with_corpus())
    assert record["dev"]["right"] == 0.0 and record["poor"] is False


def test_where_nothing_failed_nothing_is_asked(tmp_path: Path) -> None:
    materials = materials_of(tmp_path, right)
    base = materials.solution("zero_shot")
    predictions = predict(materials, base)
    model: Any = materials.model
    before = len(model.requests)
    record = diagnose(materials, base, predictions, tmp_path / "d")
    assert record["failed"] == 0 and causes(record) == () and not record["poor"] and len(model.requests) == before


def test_failed_calls_are_counted_and_not_diagnosed(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        if number(request) in (51, 52):
            raise ValueError("no room")
        return wrong(request)

    record = diagnosed(tmp_path, troubled(answers))
    assert record["dev"]["errors"] == 2
    assert not {"e51", "e52"} & {row["id"] for row in record["examples"]}


def test_killed_anywhere_and_continued_it_ends_in_the_same_record(tmp_path: Path) -> None:
    def answers(request: Request) -> str:
        return random.Random(f"{request}").choice([right(request), "guess", wrong(request)])

    whole = materials_of(tmp_path, answers, **with_corpus())
    base = whole.solution("zero_shot")
    predictions = predict(whole, base)
    expected = diagnose(whole, base, predictions, tmp_path / "whole")
    model: Any = whole.model
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
            diagnose(replace(whole, model=mortal), base, predictions, folder)
        again: Any = FakeModel(answers)
        assert diagnose(replace(whole, model=again), base, predictions, folder) == expected
        assert len(again.calls) == calls - dies_at, "what was answered is not answered again"


def test_the_record_is_plain_and_holds_every_example(tmp_path: Path) -> None:
    record = diagnosed(tmp_path, troubled(wrong), **with_corpus())
    assert json.loads(json.dumps(record)) == record
    assert len(record["examples"]) == record["failed"] + record["succeeded"]
    outcomes = record["examples"][0]["outcomes"]
    assert {"lenient", "placebo", "inconsistency", "convention", "knowledge", "reasoning"} <= set(outcomes)


def test_graded_answers_are_right_from_a_half() -> None:
    def scored(*scores: float) -> list[Prediction]:
        return [Prediction(str(i), "", 1, 1, 0.1, score=s) for i, s in enumerate(scores)]

    assert right_from("token_f1", scored(0.0, 1.0)) == 0.5
    assert right_from("python:m.py:f", scored(0.0, 0.4, 1.0)) == 0.5
    assert right_from("exact_match", scored(0.0, 1.0)) == 1.0


def test_thinking_takes_off_what_forbids_it(tmp_path: Path) -> None:
    base = replace(
        materials_of(tmp_path, right).solution("s"),
        constraint=Constraint("labels", ("a", "b")),
        demos=(Demo("i", "o"),),
        demo_selection=DemoSelection("fixed", 1),
    )
    changed = thinking(base)
    assert changed.constraint is None and not changed.demos and changed.decoding.max_new_tokens == 96


def test_marked_passages_go_before_found_ones_and_labels_mark_nothing(tmp_path: Path) -> None:
    materials = materials_of(tmp_path, right, **with_corpus())
    marked_elsewhere = replace(EXAMPLES[60], gold_ids=("p61", "p62"))
    gold = gold_passages(materials, [EXAMPLES[60], marked_elsewhere])
    assert [p.id for p in gold["e60"]] == ["p61", "p62"]
    labelled = materials_of(tmp_path, right, labels=tuple(NAMES), **with_corpus())
    assert gold_passages(labelled, [EXAMPLES[60]]) == {}


def test_marked_parts_of_a_cut_document_are_those_that_hold_the_answer(tmp_path: Path) -> None:
    parts = (Document("d#1", "Nothing here."), Document("d#2", "It is balta."), Document("x", "balta too"))
    materials = materials_of(tmp_path, right, passages=parts, retriever=BM25(parts))
    one = Example("q", "what is it", "balta", ("balta",), gold_ids=("d",))
    gold = gold_passages(materials, [one])
    assert [p.id for p in gold["q"]] == ["d#2"]
    assert GoldRetriever(gold, [one]).search(["what is it", "else"], 3) == [[parts[1]], []]

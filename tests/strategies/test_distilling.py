"""Distillation: what is asked of a teacher, what of it is learnt, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, NoGain, TrainingError
from rung.records import read_lines
from rung.resume import record_of
from rung.strategies import STRATEGIES, function_of
from rung.strategies.distilling import COUNTS, MOST_ASKED, TAUGHT, distilled_lora, rag_distilled
from rung.strategies.fine_tuning import tuned_on
from rung.strategies.registry import Texts
from rung.teaching.answering import VOTES
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Demo, DemoSelection, Query, Request, RetrieverSpec
from workshops import COLOURS, Trainee, example, workshop_of

Answer = Callable[[Request], str]


def number_of(request: Request) -> int:
    return int(request.messages[-1].content.split()[-1])


def knows(request: Request) -> str:
    return COLOURS[number_of(request) % 3]


def asked(count: int, first: int = 1000) -> tuple[Query, ...]:
    return tuple(Query(f"unlabelled:{i}", f"what colour is thing {i}") for i in range(first, first + count))


def shop_of(
    folder: Path, answer: Answer = knows, queries: tuple[Query, ...] = asked(30), tokens: int = 20_000, **more: Any
) -> Workshop:
    """A workshop with a teacher and inputs to answer."""
    shop = workshop_of(Trainee(), folder, limits={"training_tokens": tokens}, **more)
    teacher = FakeModel(answer, name="wise")
    inputs = replace(shop.inputs, unlabelled=queries)
    return replace(shop, inputs=inputs, tools=replace(shop.tools, teacher=teacher))


def trained_on(shop: Workshop) -> list[tuple[str, str]]:
    """(input, answer) of each row of the last training."""
    rows = shop.tools.model.trainings[-1]["rows"]  # type: ignore[attr-defined]
    return [(row.messages[-1].content, row.answer) for row in rows]


def teacher_of(shop: Workshop) -> Any:
    return shop.tools.teacher


# ---- what is learnt -------------------------------------------------------------------------


def test_train_grows_by_what_the_teacher_answers(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    solution = distilled_lora(shop)
    assert solution.adapter and solution.retriever is None and not solution.demos
    rows = trained_on(shop)
    assert rows[:36] == [(e.input, e.output) for e in shop.inputs.train]
    assert rows[36:] == [(q.input, COLOURS[int(q.input.split()[-1]) % 3]) for q in shop.inputs.unlabelled]
    dev = {e.input for e in shop.inputs.dev}
    assert not dev & {text for text, _ in rows}


def test_answers_without_a_majority_are_not_learnt_and_are_counted(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        wavers = number_of(request) >= 1020
        return COLOURS[request.decoding.seed] if wavers else knows(request)

    shop = shop_of(tmp_path, answer)
    distilled_lora(shop)
    assert len(trained_on(shop)) == 36 + 20
    counts = record_of(shop.folder / COUNTS)
    assert (counts["asked"], counts["kept"], counts["left_out"]) == (30, 20, {"no majority": 10})


def test_every_row_says_where_it_comes_from(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    distilled_lora(shop)
    row = read_lines(shop.folder / TAUGHT)[0]
    assert (row["id"], row["input"], row["output"]) == ("unlabelled:1000", "what colour is thing 1000", COLOURS[1])
    assert row["review"] is None
    wanted = {"kind": "distilled", "teacher": "wise", "votes": {COLOURS[1]: VOTES}, "asked": VOTES, "share": 1.0}
    assert row["origin"].items() >= wanted.items()


def test_an_input_of_train_is_not_answered_again(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, queries=(*asked(5, first=0), *asked(5)))
    distilled_lora(shop)
    assert {number_of(r) for r in teacher_of(shop).requests} == set(range(1000, 1005))


@pytest.mark.parametrize(
    ("answer", "queries", "why"),
    [
        (lambda r: COLOURS[r.decoding.seed], asked(3), r"none of 3 answers .* \(3 no majority\)"),
        (knows, asked(3, first=0), "every unlabelled input is one of train"),
    ],
)
def test_nothing_to_learn_is_said_with_the_number(
    tmp_path: Path, answer: Answer, queries: tuple[Query, ...], why: str
) -> None:
    with pytest.raises(NoGain, match=why):
        distilled_lora(shop_of(tmp_path, answer, queries))


def test_a_training_without_time_for_more_rows_asks_for_none(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, tokens=100, train=200)
    with pytest.raises(NoGain, match="sees no more rows than those of train"):
        distilled_lora(shop)
    assert not teacher_of(shop).requests


def test_no_more_inputs_are_asked_for_than_the_training_can_visit(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, queries=asked(500), tokens=3_000)
    distilled_lora(shop)
    steps = record_of(shop.folder / "training" / "course.json")["steps"]
    assert len(teacher_of(shop).requests) == VOTES * (len(trained_on(shop)) - 36) < VOTES * 500
    assert len(trained_on(shop)) <= 8 * steps


def test_rows_of_train_come_first_where_not_all_can_be_visited(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, tokens=1_000)
    tuned_on(shop, shop.solution("tuned"), [example(i) for i in range(2000, 3000)])
    rows = trained_on(shop)
    assert {e.input for e in shop.inputs.train} < {text for text, _ in rows} and len(rows) < 1036


# ---- after a kill ---------------------------------------------------------------------------


def test_what_was_answered_before_a_stop_is_not_asked_again(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    teacher = teacher_of(shop)
    teacher.block = 12
    told: list[str] = []

    def tell(what: str, share: float) -> None:
        told.append(what)
        if len(told) == 4:
            raise BudgetSpent("over")

    with pytest.raises(BudgetSpent):
        distilled_lora(replace(shop, tools=replace(shop.tools, tell=tell)))
    assert len(teacher.requests) == 36 and not (shop.folder / COUNTS).exists()
    distilled_lora(shop)
    assert len(teacher.requests) == 30 * VOTES
    before = trained_on(shop)
    teacher.requests.clear()
    (shop.folder / "answers.jsonl").unlink()
    distilled_lora(shop)
    assert not teacher.requests and trained_on(shop) == before, "what was decided is read back"


def test_with_more_time_the_same_inputs_are_asked_for_and_some_more(tmp_path: Path) -> None:
    first, second = (shop_of(tmp_path / str(n), queries=asked(500), tokens=n) for n in (2_500, 4_000))
    for shop in (first, second):
        distilled_lora(shop)
    few, more = ({number_of(r) for r in teacher_of(shop).requests} for shop in (first, second))
    assert 0 < len(few) < len(more) and few < more


# ---- retrieval into weights -----------------------------------------------------------------


def reads(request: Request, note: object) -> str:
    """The model itself: right where a passage says it."""
    last = request.messages[-1].content
    found = f"Thing {last.split()[-1]} is "
    return last.partition(found)[2].split(".")[0] if found in last else "?"


def reading_shop(folder: Path) -> Workshop:
    shop = workshop_of(Trainee(reads), folder, limits={"training_tokens": 60_000}, train=20)
    rag = replace(shop.solution("rag"), retriever=RetrieverSpec("bm25", 3, 600))
    return replace(shop, inputs=replace(shop.inputs, unlabelled=asked(12, first=44)), best_rag=rag)


def test_an_adapter_learns_what_retrieval_answers_without_the_passages(tmp_path: Path) -> None:
    shop = reading_shop(tmp_path)
    solution = rag_distilled(shop)
    assert solution.retriever is None and solution.adapter
    assert trained_on(shop)[20:] == [(f"what colour is thing {i}", COLOURS[i % 3]) for i in range(44, 56)]
    row = read_lines(shop.folder / TAUGHT)[0]
    assert row["origin"].items() >= {"kind": "read from passages", "teacher": "fake", "prompt": "rag"}.items()


def test_what_is_learnt_without_passages_names_none_of_them(tmp_path: Path) -> None:
    shop = reading_shop(tmp_path)
    assert shop.best_rag is not None
    demo = Demo("<passage 1>\nThing 3 is red.\n</passage 1>\n\nwhat colour is thing 3", "red [1]")
    citing = replace(shop.best_rag, cite=True, demos=(demo,), demo_selection=DemoSelection("fixed", 1))
    model = Trainee(lambda request, note: f"{reads(request, note)} [1]")
    rag_distilled(replace(shop, best_rag=citing, tools=replace(shop.tools, model=model)))
    learnt = [row.answer for row in model.trainings[-1]["rows"]]
    assert len(learnt) == 32 and not any("[" in answer for answer in learnt)


def test_without_a_retrieval_solution_there_is_nothing_to_put_into_weights(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no retrieval solution stands in this run"):
        rag_distilled(replace(reading_shop(tmp_path), best_rag=None))


# ---- what they cost -------------------------------------------------------------------------


def texts_of(shop: Workshop) -> Texts:
    """As the plan has them, for the rows of `example`; a token is a word."""
    inputs = shop.inputs
    counts = {"train": len(inputs.train), "dev": len(inputs.dev), "screen": 24, "unlabelled": len(inputs.unlabelled)}
    more: dict[str, Any] = {"training_tokens": shop.limits.planned, **counts}
    return Texts(own=8, answer=2, room=8, instruction=3, forms=0, passage=4, **more)


@pytest.mark.parametrize(("count", "tokens"), [(30, 20_000), (300, 20_000), (3_000, 10**9), (500, 3_000)])
def test_the_calls_that_are_planned_are_those_that_are_made(tmp_path: Path, count: int, tokens: int) -> None:
    shop = shop_of(tmp_path, queries=asked(count), tokens=tokens)
    planned = function_of(STRATEGIES["distilled_lora"].taught or "")(texts_of(shop))
    with pytest.raises(BudgetSpent):
        distilled_lora(replace(shop, tools=replace(shop.tools, tell=_until_training)))
    assert len(teacher_of(shop).requests) == pytest.approx(planned.calls, rel=0.1)
    assert planned.calls <= VOTES * MOST_ASKED


def _until_training(what: str, share: float) -> None:
    if "answers" not in what:
        raise BudgetSpent(what)


def test_a_longer_training_is_planned_for_more_rows() -> None:
    texts = Texts(
        own=20, answer=3, room=8, instruction=30, forms=0, passage=60, train=400, dev=200, screen=48,
        training_tokens=10**9,
    )  # fmt: skip
    cost = function_of(STRATEGIES["distilled_lora"].cost)
    more = replace(texts, unlabelled=400)
    assert cost(more).trained > 1.8 * cost(texts).trained
    assert cost(replace(more, training_tokens=0)) == cost(replace(texts, training_tokens=0))


def test_provenance_is_plain_json(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    distilled_lora(shop)
    lines = (shop.folder / TAUGHT).read_text("utf-8").splitlines()
    assert len(lines) == 30 and all(isinstance(json.loads(line), dict) for line in lines)

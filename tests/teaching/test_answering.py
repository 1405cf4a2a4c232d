"""A teacher's answers: asked several times, held to the task's form, put to the vote, and never paid twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.data.constraint import constraint_of
from rung.errors import NO_REPLY, BudgetSpent, ConstraintError
from rung.evaluation.judge import unbound
from rung.evaluation.metrics import METRICS
from rung.evaluation.scorer import Scorer
from rung.teaching.answering import VOTES, Voted, answered
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Constraint, Demo, DemoSelection, JudgeSpec, ModelSpec, Price, Query, Request
from workshops import workshop_of

Answers = Callable[[str, int], str | Exception]
"""(the input, the number of the sample) -> the answer."""


class Teacher(FakeModel):
    """Answers by the input and the number of the sample. holds: whether it can be held to a constraint."""

    def __init__(self, answers: Answers, *, holds: bool = True, **more: Any) -> None:
        super().__init__(lambda r: answers(r.messages[-1].content, r.decoding.seed), name="teacher", **more)
        self._holds = holds

    def check(self, constraint: Constraint) -> None:
        if not self._holds:
            raise ConstraintError("it cannot be held to anything")


def shop_of(folder: Path, teacher: FakeModel, metric: str = "exact_match", **task: Any) -> Workshop:
    shop = workshop_of(FakeModel(lambda _: "?"), folder, **task)
    task_ = replace(shop.inputs.task, metric=metric)
    inputs = replace(shop.inputs, task=task_, constraint=constraint_of(task_, shop.inputs.train))
    return replace(shop, inputs=inputs, tools=replace(shop.tools, teacher=teacher, scorer=Scorer(METRICS[metric])))


def voted(shop: Workshop, folder: Path, *texts: str, **how: Any) -> list[Voted]:
    queries = [Query(f"q{i}", text) for i, text in enumerate(texts or ("one",))]
    return answered(shop, queries, folder / "answers.jsonl", **how)


def samples(*texts: str | Exception) -> Answers:
    return lambda asked, number: texts[number]


# ---- the vote -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "answer", "share"),
    [
        (("red", "red", "red"), "red", 1.0),
        (("blue", "red", "red"), "red", 2 / 3),
        (("red", "green", "blue"), None, 1 / 3),
        (("red", ValueError("no"), "red"), "red", 2 / 3),
        (("red", ValueError("no"), ValueError("no")), None, 1 / 3),
    ],
)
def test_the_answer_of_most_samples_counts(
    tmp_path: Path, given: Sequence[str | Exception], answer: str | None, share: float
) -> None:
    (found,) = voted(shop_of(tmp_path, Teacher(samples(*given))), tmp_path)
    assert (found.answer, found.asked) == (answer, VOTES) and found.share == pytest.approx(share)
    assert found.votes == {text: given.count(text) for text in given if isinstance(text, str)}
    assert bool(found.why) == (answer is None)


def test_answers_that_the_metric_calls_the_same_vote_together(tmp_path: Path) -> None:
    teacher = Teacher(samples("it is 12", "the answer is 12", "13"))
    (found,) = voted(shop_of(tmp_path, teacher, "numeric_match"), tmp_path)
    assert found.answer == "it is 12" and found.share == pytest.approx(2 / 3)


def test_a_metric_that_grades_keeps_the_answer_that_agrees_most_with_all(tmp_path: Path) -> None:
    teacher = Teacher(samples("a cat sat there", "the cat sat there now", "dogs"))
    (found,) = voted(shop_of(tmp_path, teacher, "token_f1"), tmp_path)
    assert found.answer in ("a cat sat there", "the cat sat there now") and 0.5 < found.share < 2 / 3


def test_a_judge_is_not_asked_whether_two_answers_agree(tmp_path: Path) -> None:
    def fails(answers: object) -> list[float]:
        raise AssertionError("the judge was asked")

    shop = shop_of(tmp_path, Teacher(samples("a cat", "a cat", "dogs")))
    judge = replace(METRICS["token_f1"], name="judge", score=fails, needs_judge=True)
    shop = replace(shop, tools=replace(shop.tools, scorer=Scorer(judge)))
    assert voted(shop, tmp_path)[0].answer == "a cat"


def test_where_a_judge_scores_answers_agree_by_its_fallback_and_by_what_the_task_says_of_space(tmp_path: Path) -> None:
    judge = JudgeSpec(ModelSpec("judge", "judge"), "Be right.", fallback="exact_match")
    for whitespace, answer in (("folded", "a  b"), ("counts", None)):
        shop = shop_of(tmp_path, Teacher(samples("a  b", "a b", "c")), judge=judge, whitespace=whitespace)
        shop = replace(shop, tools=replace(shop.tools, scorer=Scorer(unbound())))
        assert voted(shop, tmp_path / whitespace)[0].answer == answer


# ---- filters --------------------------------------------------------------------------------

LABELS: Mapping[str, Any] = {"labels": ("red", "green", "blue"), "metric": "label_accuracy"}
SCHEMA: Mapping[str, Any] = {
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "metric": "json_match",
}
PATTERN: Mapping[str, Any] = {"pattern": r"\d{3}"}


@pytest.mark.parametrize(
    ("task", "text", "answer", "why"),
    [
        (LABELS, "Red", "red", ""),
        (LABELS, "```\nblue\n```", "blue", ""),
        (LABELS, "purple", None, "outside the labels"),
        ({**LABELS, "multi_label": True, "metric": "label_set_match"}, '["blue","red"]', '["red", "blue"]', ""),
        (SCHEMA, '```json\n{"n": 1}\n```', '{"n": 1}', ""),
        (SCHEMA, '{"n": "one"}', None, "outside the schema"),
        (SCHEMA, "no JSON", None, "outside the schema"),
        (PATTERN, "123", "123", ""),
        (PATTERN, "12", None, "outside the pattern"),
        ({}, "I'm sorry, but I cannot help with that.", None, "refused"),
        ({}, "As an AI I have no opinion.", None, "refused"),
        ({}, "I'm sorry your card was lost.", "I'm sorry your card was lost.", ""),
        ({}, "I don't know.", None, "refused"),
        ({"abstain": "unknown"}, "I don't know.", "I don't know.", ""),
        ({"abstain": "unknown"}, "I'm sorry, but I cannot help with that.", None, "refused"),
        ({}, " ", None, "no answer"),
        ({}, "one two three four five six seven eight nine", None, "cut off"),
        ({"metric": "json_match"}, "{broken", None, "unreadable to the metric"),
        ({"metric": "numeric_match"}, "no number", None, "unreadable to the metric"),
    ],
)
def test_only_answers_of_the_tasks_form_are_kept(
    tmp_path: Path, task: Mapping[str, Any], text: str, answer: str | None, why: str
) -> None:
    teacher = Teacher(lambda asked, number: text, holds=False)
    (found,) = voted(shop_of(tmp_path, teacher, **task), tmp_path)
    assert (found.answer, found.why) == (answer, why)


def test_a_refusal_is_an_answer_where_train_refuses(tmp_path: Path) -> None:
    text = "I cannot answer this."
    shop = shop_of(tmp_path, Teacher(lambda asked, number: text), abstain=text)
    assert voted(shop, tmp_path)[0].answer == text


def test_a_teacher_that_cannot_be_held_to_the_form_is_told_it(tmp_path: Path) -> None:
    free, bound = (Teacher(lambda asked, number: "red", holds=holds) for holds in (False, True))
    for teacher in (free, bound):
        voted(shop_of(tmp_path / str(id(teacher)), teacher, **LABELS), tmp_path / str(id(teacher)))
    assert free.requests[0].constraint is None
    assert "exactly one of: red, green, blue" in free.requests[0].messages[0].content
    assert bound.requests[0].constraint == Constraint("labels", ("red", "green", "blue"))


# ---- what is asked --------------------------------------------------------------------------


def test_the_best_prompt_asks_with_its_demos_first_greedily_then_with_seeds(tmp_path: Path) -> None:
    teacher = Teacher(lambda asked, number: "red")
    shop = shop_of(tmp_path, teacher)
    best = replace(
        shop.solution("few_shot"),
        instruction="Be brief.",
        demos=(Demo("what", "so"),),
        demo_selection=DemoSelection("fixed", 1),
    )
    voted(replace(shop, best_prompt=best), tmp_path)
    assert [[m.content for m in r.messages] for r in teacher.requests] == [["Be brief.", "what", "so", "one"]] * VOTES
    assert [(r.decoding.temperature > 0, r.decoding.seed) for r in teacher.requests] == [
        (False, 0), (True, 1), (True, 2)
    ]  # fmt: skip


def test_without_a_teacher_the_model_itself_answers(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, Teacher(lambda asked, number: "red"))
    shop = replace(shop, tools=replace(shop.tools, teacher=None, model=FakeModel(lambda _: "green")))
    assert voted(shop, tmp_path)[0].answer == "green"


def test_nothing_is_asked_twice_but_what_may_pass(tmp_path: Path) -> None:
    down = {"two"}

    def answer(asked: str, number: int) -> str:
        if asked in down:
            raise RuntimeError(f"{NO_REPLY} in 60 s")
        return "red"

    teacher = Teacher(answer)
    shop = shop_of(tmp_path, teacher)
    first = voted(shop, tmp_path, "one", "two")
    assert [v.answer for v in first] == ["red", None]
    down.clear()
    assert [v.answer for v in voted(shop, tmp_path, "one", "two")] == ["red", "red"]
    assert [r.messages[-1].content for r in teacher.requests] == ["one"] * 3 + ["two"] * 3 + ["two"] * 3


def test_the_budget_may_end_it_and_what_was_answered_stays(tmp_path: Path) -> None:
    teacher = Teacher(lambda asked, number: "red")
    teacher.block = 3  # type: ignore[attr-defined]
    told: list[float] = []

    def tell(what: str, share: float) -> None:
        told.append(share)
        if len(told) == 2:
            raise BudgetSpent("over")

    shop = shop_of(tmp_path, teacher)
    with pytest.raises(BudgetSpent):
        voted(replace(shop, tools=replace(shop.tools, tell=tell)), tmp_path, "one", "two")
    assert [v.answer for v in voted(shop, tmp_path, "one", "two")] == ["red", "red"]
    assert len(teacher.requests) == 2 * VOTES


def test_what_an_answer_cost_is_counted(tmp_path: Path) -> None:
    price = Price(usd_per_million_in=1.0, usd_per_million_out=10.0)
    teacher = Teacher(lambda asked, number: "red", price=price)
    (found,) = voted(shop_of(tmp_path, teacher), tmp_path, "one")
    tokens_in = sum(len(m.content.split()) for m in teacher.requests[0].messages)
    assert found.usd == pytest.approx(VOTES * (tokens_in + 10) / 1e6)


def test_requests_of_the_same_seed_are_the_same(tmp_path: Path) -> None:
    asked: list[list[Request]] = []
    for _ in range(2):
        teacher = Teacher(lambda asked, number: "red")
        voted(shop_of(tmp_path, teacher), tmp_path / str(len(asked)), "one", "two")
        asked.append(teacher.requests)
    assert asked[0] == asked[1]

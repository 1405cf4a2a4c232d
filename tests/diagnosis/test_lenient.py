"""What counts as the right content in the wrong shape, and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rung.diagnosis.lenient import Yardstick, bare, common_words, derivable, reads_right, stated, vote, yardstick
from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.types import Answer, Example, MetricInfo


def read(
    text: str, *references: str, metric: str = "exact_match", asked: str = "what?", passages: str = "", **more: object
) -> bool:
    graded = metric in {"token_f1", "rouge_l"}
    by = Yardstick(Scorer(load_metric(metric, Path())), 0.5 if graded else 1.0, **more)  # type: ignore[arg-type]
    return reads_right(text, Example("e", asked, references[0], references), by, passages=passages)


@pytest.mark.parametrize(
    "text",
    [
        "paris",
        "PARIS.",
        '"Paris"',
        "**Paris**",
        "Answer: Paris",
        "The answer is Paris.",
        "**Answer:** Paris\nBecause it is.",
        "City: Paris",
        "Paris\n\nNote that it is large.",
        "The capital of France is Paris.",
        "```\nParis\n```",
        "It has been the city of Paris for a thousand years now",
    ],
)
def test_the_right_content_is_found_in_a_wrong_shape(text: str) -> None:
    assert read(text, "Paris", asked="What is the capital of France?")


@pytest.mark.parametrize("text", ["", "Lyon", "Parisian things", "comparison", "The answer is Lyon."])
def test_other_content_is_not(text: str) -> None:
    assert not read(text, "Paris", asked="What is the capital of France?")


def test_an_answer_beside_another_known_answer_was_not_singled_out() -> None:
    assert not read("It may be Paris, Lyon or Rome, I think", "Paris", known=("Rome", "Paris"))
    assert read("Paris, and not in Rome", "Paris", asked="Is it in Rome?", known=("Rome",)), "the question named it"
    assert read("the New York city", "New York", known=("York", "New York")), "part of the answer itself"


def test_any_accepted_answer_will_do() -> None:
    assert read("it is called Burma today", "Myanmar", "Burma")


LABELS = ("card_payment", "declined_card_payment", "top_up")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Declined card payment", True),
        ("The intent is declined_card_payment.", True),
        ("card_payment", False),
        ("declined_card_payment or top_up", False),
        ("declined_card_payment\n\nMessage: hello\ntop_up", True),
        ("Answer: declined card payment. Not top_up", False),
        ("I cannot say", False),
    ],
)
def test_a_label_counts_when_it_is_the_only_one_named(text: str, right: bool) -> None:
    assert read(text, "declined_card_payment", metric="label_accuracy", labels=LABELS) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [("B) because", True), ("(b)", True), ("a banana is B", False), ("Answer: B", True), ("A", False)],
)
def test_a_label_of_one_letter_is_read_only_where_the_answer_begins(text: str, right: bool) -> None:
    assert read(text, "B", metric="label_accuracy", labels=("A", "B", "C")) is right


def test_labels_that_differ_in_signs_alone_are_not_guessed() -> None:
    labels = ("refund", "refund?")
    assert not read("it is about a refund", "refund", metric="label_accuracy", labels=labels)
    assert read("'refund?'", "refund?", metric="label_accuracy", labels=labels)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('Here it is: {"a": 1, "b": ["x"]} Hope it helps', True),
        ('```json\n{"b": [\'x\'], "a": 1}\n```', True),
        ("{'a': 1, 'b': ['x']}", True),
        ('{"A": 1, "B": ["X"]}', True),
        ('{"a": 2} {"a": 1, "b": ["x"]}', False),
        ('{"a": 1', False),
        ("{{{{", False),
    ],
)
def test_the_first_json_object_is_read(text: str, right: bool) -> None:
    assert read(text, '{"a": 1, "b": ["x"]}', metric="json_match") is right


def test_the_order_of_lists_counts_in_a_wrong_shape_where_it_counts_for_the_metric() -> None:
    text, reference = 'Sure: {"Steps": ["b", "a"]}', '{"steps": ["a", "b"]}'
    assert not read(text, reference, metric="json_match")
    unordered = Yardstick(Scorer(load_metric("json_match", Path(), unordered=True)), 1.0)
    assert reads_right(text, Example("e", "what?", reference, (reference,)), unordered)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3 + 4 makes 1,007 apples", True),
        ("$1007", True),
        ("1007 of 2000", False),
        ("**Answer:** 1007 (of 2000)", True),
        ("10075", False),
        ("none", False),
    ],
)
def test_of_numbers_the_stated_one_or_the_last_is_read(text: str, right: bool) -> None:
    assert read(text, "1007") is right
    assert not read("x1007", "1007", metric="numeric_match")


def test_a_sentence_with_the_span_is_enough_for_a_graded_metric() -> None:
    passage = "The war began in the east. " * 8 + "The fighting there lasted six years until the treaty of the north."
    text = "According to what is written above, the fighting had lasted six years in total."
    assert read(text, "six years", metric="token_f1", asked=passage)


def test_what_is_merely_copied_from_the_input_is_no_answer() -> None:
    asked = "Amanda loved the trombone and the tuba. She thought the _ was easy."
    assert not read(asked, "trombone", asked=asked)
    assert not read("trombone and tuba", "trombone", asked=asked)
    assert read("the trombone", "trombone", asked=asked)


def test_what_is_merely_copied_from_a_passage_is_no_answer_but_a_sentence_is() -> None:
    passage = "Managua lies by a lake. It was founded late and grew fast, and it is the capital of Nicaragua."
    asked = "What is the capital of Nicaragua?"
    assert not read(passage, "Managua", asked=asked, passages=passage)
    assert read("The capital of Nicaragua is Managua.", "Managua", asked=asked, passages=passage)


def test_a_metric_that_fails_at_a_piece_of_text_takes_nothing_down() -> None:
    def picky(answers: Sequence[Answer]) -> list[float]:
        raise ValueError("cannot read this")

    by = Yardstick(Scorer(MetricInfo("picky", picky)), 1.0)
    assert not reads_right("x y", Example("e", "i", "z", ("z",)), by)


def test_the_readings_of_an_answer_are_scored_in_one_call_and_by_no_judge() -> None:
    calls: list[int] = []

    def counting(answers: Sequence[Answer]) -> list[float]:
        calls.append(len(answers))
        return [float(a.text == "z" and a.query.id == "e") for a in answers]

    example = Example("e", "i", "z z", ("z z",))
    metric = MetricInfo("counting", counting)
    assert reads_right("Answer: z\nmore of it", example, Yardstick(Scorer(metric), 1.0))
    assert len(calls) == 1 and calls[0] > 1
    judge = MetricInfo("judge", counting, needs_judge=True)
    assert not reads_right("Answer: z", example, Yardstick(Scorer(judge), 1.0)) and len(calls) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2 and 2.\nAnswer: 4", "4"),
        ("Answer: 3? No.\n**Answer:** 4\nthanks", "4"),
        ("the answer is 5.\nAnswer:\n4", "4"),
        ("So the answer is four", "four"),
        ('Answer: {"a":\n 1}', '{"a":\n 1}'),
        ("name[The Mill]", "name[The Mill]"),
        ("Answer: name[The Mill]", "name[The Mill]"),
        ("Answer:", "Answer:"),
    ],
)
def test_the_stated_answer_follows_the_last_mark(text: str, found: str) -> None:
    assert stated(text) == found


def test_articles_case_and_signs_do_not_count_but_something_must_be_left() -> None:
    assert bare("The U.S. Army!") == "u s army" and bare("A") == "a" and bare("?") == ""


def test_samples_vote_for_one_answer_by_its_number_or_its_words() -> None:
    assert vote("It is 4.", numeric=True) == vote("2 + 2 = 4", numeric=True)
    assert vote("Yes.", numeric=False) == vote("yes", numeric=False) != vote("no", numeric=False)


def test_an_answer_that_can_be_copied_or_computed_is_no_fact() -> None:
    train = [Example(str(i), "?", f"name[x{i}]", (f"name[x{i}]",)) for i in range(40)]
    common = common_words(train)
    assert common == {"name"}
    assert derivable(Example("a", "the pub Mill", "name[Mill]", ()), common)
    assert derivable(Example("b", "3 books and 4 pens", "7", ()), common)
    assert not derivable(Example("c", "When did it begin?", "1811", ()), common)
    assert not derivable(Example("d", "Who wrote Emma?", "Jane Austen", ()), common)


# ---- scripts without spaces -----------------------------------------------------------------


def test_words_are_counted_in_scripts_without_spaces() -> None:
    assert bare("这是巴黎。") == "这 是 巴 黎"
    train = [Example(str(i), "?", f"城市{i}年", (f"城市{i}年",)) for i in range(40)]
    assert common_words(train) == {"城市", "年"}
    assert derivable(Example("a", "北京在哪里？北京在中国。", "中国", ("中国",)), frozenset())
    assert not derivable(Example("b", "法国的首都是哪里？", "巴黎", ("巴黎",)), frozenset())
    # Its characters stand in the input, but not together.
    assert not derivable(Example("c", "东厅里的红灯旁，茶壶是什么色？", "红色", ("红色",)), frozenset())


def test_an_answer_in_a_sentence_without_spaces_is_contained() -> None:
    assert read("答案：巴黎", "巴黎", asked="法国的首都是哪里？")
    assert read("法国的首都是巴黎。", "巴黎", asked="法国的首都是哪里？")
    assert not read("法国的首都是里昂。", "巴黎", asked="法国的首都是哪里？")


def test_a_metric_that_reads_numbers_is_known_by_what_it_accepts() -> None:
    train = [Example("a", "2 + 2", "2 + 2 = 4\n#### 4", ("2 + 2 = 4\n#### 4",)), Example("b", "3 + 4", "7", ("7",))]
    numeric, exact = (
        yardstick(Scorer(load_metric(m, Path())), 1.0, None, train) for m in ("numeric_match", "exact_match")
    )
    assert numeric.numeric and not exact.numeric

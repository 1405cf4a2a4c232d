"""What does not fit the context is told before anything is spent, and moves no estimate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rung.ladder.lengths import too_long
from rung.ladder.plan_texts import texts_of
from rung.models import metered, text_counter
from rung.testing.fakes import FakeModel
from rung.types import Example, ModelSpec, SealedTest, Split, Task

TASK = Task("t", Path("task.yaml"), "Answer.", (), "exact_match", (ModelSpec("m", "fake"),))


def rows(n: int, **long: tuple[str, str]) -> list[Example]:
    """n short rows, and named ones of (input, output)."""
    short = [Example(str(i), f"input number {i}", "yes", ("yes",), row=f"line {i + 1}") for i in range(n)]
    return [*short, *(Example(name, asked, out, (out,), row=name) for name, (asked, out) in long.items())]


def words(text: str) -> int:
    return len(text.split())


def test_inputs_that_exceed_the_context_are_told_with_their_rows_and_sets() -> None:
    examples = rows(20, big=("word " * 500, "yes"), huge=("word " * 100_000, "yes"))
    split = Split(tuple(examples[:10]), tuple(examples[10:21]), SealedTest(examples[21:]), {})
    (found,) = too_long(examples, TASK, {"small": (words, 100)}, split)
    assert (found.check, found.severity, found.row, found.ids) == ("too_long", "warning", "", ("big", "huge"))
    assert found.message.startswith("2 of 22 inputs do not fit the 100 tokens that small reads: big, huge.")
    assert "1 of 1 in the test, 1 of 11 in dev" in found.message


def test_an_input_that_fits_without_its_answer_is_a_note() -> None:
    (found,) = too_long(rows(5, long=("word " * 50, "word " * 50)), TASK, {"small": (words, 100)})
    assert (found.severity, found.ids) == ("note", ("long",))


def test_texts_that_surely_fit_are_not_counted() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    assert too_long(rows(1000), TASK, {"m": (count, 2048)}) == ()
    assert counted == ["Answer."]
    too_long(rows(3, huge=("w " * 10**6, "yes")), TASK, {"m": (count, 2048)})
    assert max(map(len, counted)) < 50_000, "the start of a text shows that it does not fit"


def plan_texts(examples: list[Example]) -> Any:
    split = Split(tuple(examples), tuple(examples[:2]), SealedTest(examples[:2]), {})
    return texts_of(TASK, split, metered(FakeModel({}, context_length=2048)), (), 0)


def test_long_rows_do_not_move_the_estimates() -> None:
    usual = plan_texts(rows(22))
    long = plan_texts(list(reversed(rows(22, first=("word " * 60_000, "yes"), second=("word " * 60_000, "yes")))))
    assert long.own == usual.own and long.room == usual.room


def test_one_answer_of_megabytes_gives_no_other_its_room() -> None:
    assert plan_texts(rows(35, big=("input", "word " * 1_800_000))).room == plan_texts(rows(35)).room
    assert plan_texts(rows(35, long=("input", "word " * 300))).room > 300, "an answer of usual length has its room"


def test_a_local_model_counts_tokens_without_being_loaded(tiny_folder: Path, tiny: Any) -> None:
    counter = text_counter(str(tiny_folder))
    assert counter is not None
    count, most = counter
    assert most == tiny.context_length
    assert count("the card is lost") == tiny.count_tokens("the card is lost")
    assert text_counter("https://example.com/v1#name") is None
    assert text_counter("no/such-model-here") is None
    assert text_counter(json.dumps({"endpoint": "https://example.com/v1", "name": "n"})) is None

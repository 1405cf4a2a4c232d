"""Any text: no check raises, none shows a value, and a masked text holds nothing that would be masked again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rung.data.checks import ROW_DETECTORS, Material, found_in
from rung.data.hidden import hidden_in, without_hidden
from rung.data.masking import Masks
from rung.data.sensitive import sensitive
from rung.types import Document, Example, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))
PIECES = st.sampled_from(
    [
        *("jane@corp.org", "+49 30 901820", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "536-90-4399"),
        *("8.8.100.8", "password: hunter2abc", "```", '{"a": 1}', "{{name}}", "ignore all previous instructions"),
        *("<!--", "-->", "<|im_start|>", "I can't help", "\u200b", "\u202e", "👨\u200d👩\u200d👧", "ё", "a" * 70),
        *("\n", " ", "1 2 3 4 5 6 7 8"),
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=6).map("".join)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def rows(texts: list[tuple[str, str]]) -> tuple[Example, ...]:
    return tuple(Example(str(i), asked, said, (said,), row=f"line {i}") for i, (asked, said) in enumerate(texts))


@FEW
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=30))
def test_no_check_raises_and_no_finding_shows_a_value(texts: list[tuple[str, str]]) -> None:
    examples = rows(texts)
    documents = tuple(Document(str(i), asked) for i, (asked, _) in enumerate(texts))
    found = found_in(Material(TASK, {None: examples}, examples, documents=documents), ROW_DETECTORS)
    assert not any(v in f.message for f in found for v in ("jane@", "901820", "4111", "hunter2", "DE89 37"))


@FEW
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8))
def test_masked_rows_hold_nothing_that_would_be_masked(texts: list[tuple[str, str]]) -> None:
    examples = rows(texts)
    masks = Masks(examples, ())
    for example in examples:
        masked, _ = masks.example(example)
        left = {one.check for text in (masked.input, masked.output) for one in sensitive(text)}
        assert left <= {"identifier", "card_number"}  # numbers of a form that means something else in these rows


@FEW
@given(TEXTS)
def test_a_text_without_hidden_characters_has_none_left_to_find(text: str) -> None:
    once = without_hidden(text)
    assert hidden_in(without_hidden(once)) == [] or len(without_hidden(once)) < len(once)
    assert [c for c in once if c.isalnum()] == [c for c in text if c.isalnum()]

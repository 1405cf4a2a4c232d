from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from rung.engine.batch import unpacked
from rung.engine.grammar import Grammars, pack
from rung.errors import ConstraintError
from rung.types import Constraint

LABELS = (
    "card", "card_arrival", 'say "yes"', "what?", "a|b", "back\\slash", "größe", "日本",
    "😀", "it's", "(x)", "/re/", "a b",
    "line\nbreak", "tab\there", "%x", "\\d+", "ends with \\", "<b>", "[1]", "a" * 300,
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["card", 'a "quoted" one', None]},
        "amount": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["kind", "amount", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(tiny: Any) -> Grammars:
    return Grammars(tiny.chat.answer_tokens(), tiny.engine.vocabulary)


def random_answers(tiny: Any, grammars: Grammars, constraint: Constraint, n: int) -> Iterator[str]:
    """Answers drawn evenly from the allowed tokens, each ended by the end token."""
    for seed in range(n):
        draw, matcher, ids = np.random.default_rng(seed), grammars.matcher(constraint), []
        while not ids or ids[-1] != tiny.chat.end_id:
            assert len(ids) < 2000
            ids.append(int(draw.choice(np.flatnonzero(matcher.allowed()))))
            matcher.consume(ids[-1])
        yield tiny.chat.tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)


def accepted(tiny: Any, grammars: Grammars, constraint: Constraint, text: str) -> bool:
    matcher = grammars.matcher(constraint)
    for token in [*tiny.chat.tokenizer.encode(text, add_special_tokens=False), tiny.chat.end_id]:
        if not matcher.allowed()[token]:
            return False
        matcher.consume(token)
    return True


def test_many_matchers_write_their_bits_as_each_by_itself(tiny: Any, grammars: Grammars) -> None:
    text = tiny.chat.tokenizer.encode('{"kind": "card", "amount": 9', add_special_tokens=False)
    matchers, labels = [], grammars.matcher(Constraint("labels", LABELS))
    for read in (*range(len(text)), len(text)):
        matcher = grammars.matcher(Constraint("json_schema", SCHEMA))
        for token in text[:read]:
            matcher.consume(token)
        matchers += [matcher, labels.copy()]
    ended = grammars.matcher(Constraint("regex", "a"))
    ended.forced()
    words = -(-tiny.engine.vocabulary // 32)
    into = np.zeros((len(matchers) + 1, 4 * words), dtype=np.uint8)
    pack([*matchers, ended], into)
    for row, matcher in zip(into, [*matchers, ended], strict=True):
        bits = np.unpackbits(row, bitorder="little")[: tiny.engine.vocabulary].astype(bool)
        assert (bits == matcher.allowed()).all()


@pytest.mark.parametrize("constraint", [Constraint("labels", LABELS), Constraint("json_schema", SCHEMA)])
def test_bits_are_unpacked_to_what_is_allowed(tiny: Any, grammars: Grammars, constraint: Constraint) -> None:
    draw, matcher, token = np.random.default_rng(0), grammars.matcher(constraint), -1
    while token != tiny.chat.end_id:
        packed = torch.from_numpy(matcher.packed().copy())[None]
        allowed = matcher.allowed()
        assert torch.equal(unpacked(packed, len(allowed))[0], torch.from_numpy(allowed))
        token = int(draw.choice(np.flatnonzero(allowed)))
        matcher.consume(token)
    assert unpacked(torch.from_numpy(matcher.packed().copy())[None], len(allowed)).sum() >= 1


def test_the_grammars_that_are_kept_are_bounded(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.engine.grammar._MOST_KEPT", 3)
    grammars = Grammars(tiny.chat.answer_tokens(), tiny.engine.vocabulary)
    for number in range(8):
        assert accepted(tiny, grammars, Constraint("labels", ("car", f"car{number}")), f"car{number}")
    assert len(grammars._compiled) == 3


def test_every_label_can_be_answered_and_nothing_else(tiny: Any, grammars: Grammars) -> None:
    constraint = Constraint("labels", LABELS)
    assert [label for label in LABELS if not accepted(tiny, grammars, constraint, label)] == []
    for other in ["", "car", "card_", "card ", "Card", "back/slash", "what", "日", "1"]:
        assert not accepted(tiny, grammars, constraint, other), other


def test_random_allowed_tokens_make_a_label(tiny: Any, grammars: Grammars) -> None:
    drawn = set(random_answers(tiny, grammars, Constraint("labels", LABELS), 60))
    assert drawn <= set(LABELS) and len(drawn) > 8


@pytest.mark.parametrize("label", LABELS)
def test_a_single_label_is_the_only_answer(tiny: Any, grammars: Grammars, label: str) -> None:
    assert set(random_answers(tiny, grammars, Constraint("labels", (label,)), 2)) == {label}


def test_random_allowed_tokens_make_json_of_the_schema(tiny: Any, grammars: Grammars) -> None:
    for text in random_answers(tiny, grammars, Constraint("json_schema", SCHEMA), 25):
        record = json.loads(text)
        assert set(record) == {"kind", "amount", "tags"}
        assert record["kind"] in ["card", 'a "quoted" one', None]
        assert isinstance(record["amount"], int) and 0 <= record["amount"] <= 99
        assert len(record["tags"]) <= 2 and all(isinstance(t, str) and len(t) <= 3 for t in record["tags"])


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-z]{1,4}x", "(yes|no)", r"[^\n]{1,5}\.", "ä[öü]?", r"\$\d\.\d\d"])
def test_random_allowed_tokens_match_the_whole_pattern(tiny: Any, grammars: Grammars, pattern: str) -> None:
    for text in random_answers(tiny, grammars, Constraint("regex", pattern), 15):
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize(
    ("pattern", "allows"),
    [
        (r"^[A-Z]{2}-\d$", r"[A-Z]{2}-\d"),
        (r"(?i)ab|c", r"(?i)ab|c"),
        (r"\bAB\b-\d", r"AB-\d"),
        (r"(?!0)\d{2}", r"\d{2}"),
    ],
)
def test_what_a_grammar_cannot_hold_of_a_pattern_is_left_open(
    tiny: Any, grammars: Grammars, pattern: str, allows: str
) -> None:
    for text in random_answers(tiny, grammars, Constraint("regex", pattern), 10):
        assert re.fullmatch(allows, text), text


def test_several_labels_are_written_once_each_in_their_order(tiny: Any, grammars: Grammars) -> None:
    labels = [label for label in LABELS if len(label) < 300]
    schema = {"type": "array", "items": {"type": "string", "enum": labels}, "uniqueItems": True}
    constraint = Constraint("json_schema", schema)
    for subset in ([], labels, labels[3:5], labels[-1:]):
        assert accepted(tiny, grammars, constraint, json.dumps(subset, ensure_ascii=False)), subset
    for other in (labels[1::-1], [labels[0]] * 2, ["none"]):
        assert not accepted(tiny, grammars, constraint, json.dumps(other, ensure_ascii=False)), other
    for text in random_answers(tiny, grammars, constraint, 20):
        found = json.loads(text)
        assert found == [label for label in labels if label in found]


def test_at_least_one_label_may_be_demanded(tiny: Any, grammars: Grammars) -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 1}
    constraint = Constraint("json_schema", schema)
    assert not accepted(tiny, grammars, constraint, "[]") and accepted(tiny, grammars, constraint, '["b"]')


def test_after_a_complete_answer_only_the_end_may_come(tiny: Any, grammars: Grammars) -> None:
    matcher = grammars.matcher(Constraint("labels", ("a",)))
    matcher.consume(tiny.chat.tokenizer.encode("a")[0])
    assert np.flatnonzero(matcher.allowed()).tolist() == [tiny.chat.end_id]
    matcher.consume(tiny.chat.end_id)
    assert np.flatnonzero(matcher.allowed()).tolist() == [tiny.chat.end_id]


def test_special_tokens_are_never_part_of_an_answer(tiny: Any, grammars: Grammars) -> None:
    allowed = grammars.matcher(Constraint("regex", r"(.|\n)+")).allowed()
    assert not allowed[:3].any()  # one character is still missing, so not even the end token
    assert allowed[3:].sum() > 100


def test_matchers_of_one_constraint_are_independent(tiny: Any, grammars: Grammars) -> None:
    constraint = Constraint("labels", ("ab", "cd"))
    first = grammars.matcher(constraint)
    first.consume(tiny.chat.tokenizer.encode("c")[0])
    letters = {tiny.chat.tokenizer.decode([i]) for i in np.flatnonzero(grammars.matcher(constraint).allowed())}
    assert letters == {"a", "c"}


@pytest.mark.parametrize(
    ("constraint", "place"),
    [
        (Constraint("regex", "("), "pattern"),
        (Constraint("json_schema", {"type": "nonsense"}), "schema"),
        (Constraint("json_schema", {"$ref": "#/nowhere"}), "schema"),
        (Constraint("labels", ()), "labels"),
    ],
)
def test_a_constraint_without_a_grammar_is_an_error_that_names_its_place(
    grammars: Grammars, constraint: Constraint, place: str
) -> None:
    with pytest.raises(ConstraintError, match=f"^{place}: "):
        grammars.matcher(constraint)

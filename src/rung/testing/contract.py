"""What a model behind an endpoint must do, as checks that any OpenAI-compatible server can be put to.

Each check is a function of a Subject: it returns a remark, mostly "", and raises AssertionError with the fact where the
contract is broken. They ask for nothing that only a good model gives: a model of 135 million parameters passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rung.errors import about_its_prompt, came
from rung.testing.endpoint.shapes import conforms
from rung.types import Constraint, Decoding, Generation, Message, Model, Request

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "country": {"enum": ["France", "Peru", "Japan"]}},
    "required": ["city", "country"],
    "additionalProperties": False,
}
LABELS = ("positive", "negative", "neither of the two")
YEAR = r"[12][0-9]{3}"


@dataclass(frozen=True)
class Subject:
    """A server under test.

    open: a model that is opened afresh, as a new process would; what was kept on disk stays. long_words: words of a
    prompt that is longer than the context. calls: how many calls the server has seen; None where it cannot say.
    served: a part of the name that the server gives in its answers. holds_patterns: it can hold a model to a regular
    expression, so that every answer must match.
    """

    open: Callable[[], Model]
    served: str
    long_words: int
    calls: Callable[[], int] | None = None
    holds_patterns: bool = False


Check = Callable[[Subject], str]


def ask(text: str, tokens: int = 24, constraint: Constraint | None = None) -> Request:
    """A request of one user turn, greedy."""
    return Request((Message("user", text),), Decoding(tokens), constraint)


def answers_come_in_order(subject: Subject) -> str:
    """Each of 24 requests has labels of its own, so that an answer names its request."""
    pairs = [(f"left {i}", f"right {i}") for i in range(24)]
    requests = [ask(f"Choose: {a} or {b}?", constraint=Constraint("labels", (a, b))) for a, b in pairs]
    answers = subject.open().generate(requests)
    _all_good(answers, len(requests))
    for pair, answer in zip(pairs, answers, strict=True):
        assert answer.text in pair, f"the answer to {pair} is {answer.text!r}"
    return ""


def greedy_answers_repeat(subject: Subject) -> str:
    """Asked afresh and streamed, a request gets the text that it got before."""
    model = subject.open()
    requests = [ask("Name the capital of France."), ask("Write a sentence about the sea.")]
    kept = [answer.text for answer in model.generate(requests)]
    for _ in range(2):
        fresh = [answer.text for answer in _timed(model, requests, 1)]
        assert fresh == kept, f"{kept} became {fresh}"
    assert all(kept), f"an answer is empty: {kept}"
    return ""


def labels_are_labels(subject: Subject) -> str:
    """Every answer under a label constraint is one of the labels."""
    texts = ("I love it.", "It broke at once.", "It is a box.", "Never again!", "Fine, I suppose.", "Wonderful.")
    requests = [ask(f"Is this positive or negative? {text}", constraint=Constraint("labels", LABELS)) for text in texts]
    answers = subject.open().generate(requests)
    _all_good(answers, len(requests))
    assert {answer.text for answer in answers} <= set(LABELS), f"{[answer.text for answer in answers]}"
    return ""


def json_meets_its_schema(subject: Subject) -> str:
    """Every whole answer under a JSON Schema is JSON of it."""
    constraint = Constraint("json_schema", SCHEMA)
    texts = ("Lima is in Peru.", "She moved to Lyon, France.", "Kyoto, Japan")
    answers = subject.open().generate([ask(f"Which city and country? {text}", 64, constraint) for text in texts])
    _all_good(answers, len(texts))
    for answer in answers:
        value = json.loads(answer.text)
        assert conforms(value, SCHEMA, SCHEMA), f"it is none of the schema: {answer.text}"
    return ""


def a_pattern_holds(subject: Subject) -> str:
    """An answer under a pattern matches it; where a server has no way to hold a model to it, most answers may fail."""
    constraint = Constraint("regex", YEAR)
    texts = ("When did the second world war end?", "In which year did men land on the moon?")
    asked = [ask(f"{text} Answer with the year alone, in four digits.", constraint=constraint) for text in texts]
    answers = subject.open().generate(asked)
    _counted(answers, len(texts))
    held = [re.fullmatch(YEAR, answer.text) is not None for answer in answers if came(answer.error)]
    matching = sum(held)
    assert matching or held, f"every answer is an error: {answers[0].error}"
    if subject.holds_patterns:
        assert matching == len(texts), f"{[answer.text for answer in answers]}"
    return "" if matching == len(texts) else f"{matching} of {len(texts)} match"


def usage_is_counted(subject: Subject) -> str:
    """Tokens are counted, and a longer prompt has more of them."""
    model = subject.open()
    short, long = model.generate([ask("Say yes.", 8), ask("Say yes. " * 40, 8)])
    for answer in (short, long):
        assert answer.error is None, answer.error
        assert 0 < answer.tokens_out <= 8 + _thought(model), f"tokens_out is {answer.tokens_out}"
        assert answer.latency_s > 0, "latency_s is 0"
    assert 0 < short.tokens_in < long.tokens_in, f"tokens_in: {short.tokens_in} and {long.tokens_in}"
    return ""


def too_long_a_prompt_fails_alone(subject: Subject) -> str:
    """It is the error of its answer, by which rung knows that asking again is no use; the others are answered."""
    requests = [ask("Say yes."), ask("word " * subject.long_words), ask("Say no.")]
    first, long, last = subject.open().generate(requests)
    assert first.error is None and last.error is None, f"the others: {first.error}, {last.error}"
    assert long.error is not None, f"it was answered: {long.text[:60]!r}"
    assert about_its_prompt(long.error), f"the error does not say that it is too long: {long.error}"
    return ""


def new_tokens_are_bounded(subject: Subject) -> str:
    """An answer longer than max_new_tokens is cut there and finishes with "length".

    A model that thinks first has room for its thought, and what the thought leaves of it may hold a longer answer.
    """
    model = subject.open()
    (answer,) = model.generate([ask("Write a long story about a king and his three daughters.", 5)])
    assert answer.error is None, answer.error
    if (room := _thought(model)) > 0:
        assert answer.tokens_out <= 5 + room, f"{answer.tokens_out} tokens"
        return "it thinks"
    assert answer.finish == "length" and answer.tokens_out <= 5, f"{answer.finish}, {answer.tokens_out} tokens"
    return ""


def first_tokens_are_timed(subject: Subject) -> str:
    """Streamed calls tell the time to the first token and to the last."""
    requests = [ask(f"Write a sentence about the number {i}.") for i in range(4)]
    answers = _timed(subject.open(), requests, 2)
    _all_good(answers, len(requests))
    for answer in answers:
        first = answer.first_token_s
        assert first is not None and 0 < first <= answer.latency_s, f"{first} s of {answer.latency_s} s"
    return ""


def nothing_is_asked_twice(subject: Subject) -> str:
    """A model that is opened again gives the same answers from the cache, for nothing."""
    requests = [ask(f"Write a word that begins like the number {i}.", 8) for i in range(8)]
    asked = subject.open().generate(requests)
    _all_good(asked, len(requests))
    before = subject.calls() if subject.calls is not None else 0
    again = subject.open().generate(requests)
    assert [a.text for a in again] == [a.text for a in asked], "the texts differ"
    assert all(answer.usd == 0 for answer in again), f"they were charged: {[answer.usd for answer in again]}"
    assert [a.tokens_out for a in again] == [a.tokens_out for a in asked], "the tokens differ"
    if subject.calls is not None:
        assert subject.calls() == before, f"{subject.calls() - before} calls were made"
    return ""


def a_bad_request_spoils_nothing(subject: Subject) -> str:
    """A request that no server can take whole, with half of a surrogate pair in it, leaves the others as they are."""
    requests = [ask("Say yes."), ask("half \ud83d of it"), ask("", 8), ask("Say no.")]
    answers = subject.open().generate(requests)
    _counted(answers, len(requests))
    for answer in (answers[0], answers[3]):
        assert answer.error is None and answer.text, f"a good one failed: {answer.error}"
    return "; ".join(sorted({answer.error for answer in answers[1:3] if answer.error is not None}))[:100]


def the_served_name_is_recorded(subject: Subject) -> str:
    """The record of a run has the name that the server gives in its answers."""
    model = subject.open()
    model.generate([ask(f"Say a word that is not {subject.served}.")])
    facts = json.dumps(_facts(model))
    assert subject.served in facts, f"{subject.served!r} is not in {facts[:300]}"
    return ""


CHECKS: dict[str, Check] = {
    "answers come in order": answers_come_in_order,
    "greedy answers repeat": greedy_answers_repeat,
    "labels are labels": labels_are_labels,
    "JSON meets its schema": json_meets_its_schema,
    "a pattern holds": a_pattern_holds,
    "usage is counted": usage_is_counted,
    "too long a prompt fails alone": too_long_a_prompt_fails_alone,
    "max_new_tokens cuts": new_tokens_are_bounded,
    "first tokens are timed": first_tokens_are_timed,
    "nothing is asked twice": nothing_is_asked_twice,
    "a bad request spoils nothing": a_bad_request_spoils_nothing,
    "the served name is recorded": the_served_name_is_recorded,
}
"""All of them, by what they check."""


def _counted(answers: Sequence[Generation], wanted: int) -> None:
    assert len(answers) == wanted, f"{len(answers)} answers to {wanted} requests"


def _all_good(answers: Sequence[Generation], wanted: int) -> None:
    _counted(answers, wanted)
    errors = [answer.error for answer in answers if answer.error is not None]
    assert not errors, f"{len(errors)} of {wanted} failed: {errors[0]}"


def _thought(model: Model) -> int:
    """Tokens that an answer may have beyond max_new_tokens."""
    return int(getattr(model, "thought_tokens", 0))


def _timed(model: Model, requests: Sequence[Request], concurrency: int) -> list[Generation]:
    timed: Any = getattr(model, "timed", None)
    assert timed is not None, "the model has no `timed`"
    answers: list[Generation] = timed(requests, concurrency)
    return answers


def _facts(model: Model) -> dict[str, Any]:
    facts: Any = getattr(model, "facts", None)
    assert facts is not None, "the model has no `facts`"
    told: dict[str, Any] = facts()
    return told

"""Schemas as pydantic writes them: what its models accept may be written and is right, what they refuse is told."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import llguidance
import pytest

from rung.constraints import fault_of, loosened
from rung.data.constraint import constraint_of, form_in_words
from rung.engine.grammar import grammar_of
from rung.types import Constraint, Example, ModelSpec, Task

pydantic = pytest.importorskip("pydantic")
BaseModel: Any = pydantic.BaseModel
Field: Any = pydantic.Field


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Address(BaseModel):
    street: str
    code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Person(BaseModel):
    name: Annotated[str, Field(pattern=r"^\w+$")]
    address: Address
    nick: str | None = None


class Times(BaseModel):
    day: date
    at: datetime
    clock: time
    took: timedelta


class Kinds(BaseModel):
    mood: Literal["good", "bad"]
    colour: Colour
    mixed: Literal["a", 1, None]
    id: UUID


class Lists(BaseModel):
    unique: set[int]
    pair: tuple[int, str]
    few: Annotated[list[int], Field(min_length=1, max_length=2)]


class Maps(BaseModel):
    counts: dict[str, int]
    deep: dict[str, list[dict[str, Person | None]]] = Field(default_factory=dict)


class Numbers(BaseModel):
    whole: Annotated[int, Field(ge=1, le=10, multiple_of=2)]
    share: Annotated[float, Field(gt=0, lt=1)]
    money: Annotated[Decimal, Field(max_digits=5, decimal_places=2)]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Owner(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]


class Node(BaseModel):
    value: int
    children: list[Node] = Field(default_factory=list)


class Closed(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    size: int = Field(alias='x-size "q"')


class Open(BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    anything: Any


PERSON = {"name": "Jörg", "address": {"street": "x", "code": "12345"}, "nick": None}
TIMES = {"day": "2024-02-29", "at": "2024-02-29T10:00:00.5", "clock": "10:00:00", "took": "-P1DT0.5S"}
KINDS = {"mood": "bad", "colour": "red", "mixed": 1, "id": "12345678-1234-4234-8234-123456789abc"}
PETS = {"pets": [{"kind": "dog", "barks": True}, {"kind": "cat", "lives": 9}]}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Person, PERSON, {**PERSON, "name": "Jörg M"}),
        (Times, TIMES, {**TIMES, "at": "soon"}),
        (Kinds, KINDS, {**KINDS, "mixed": 2}),
        (Lists, {"unique": [1, 2], "pair": [1, "a"], "few": [3]}, {"unique": [1], "pair": [1], "few": [3]}),
        (Maps, {"counts": {"a": 1}, "deep": {"k": [{"x": PERSON, "y": None}]}}, {"counts": {"a": "x"}}),
        (Numbers, {"whole": 4, "share": 0.5, "money": "1.25"}, {"whole": 5, "share": 0.5, "money": "1.25"}),
        (Owner, PETS, {"pets": [{"kind": "dog", "lives": 9}]}),
        (Node, {"value": 1, "children": [{"value": 2, "children": []}]}, {"value": 1, "children": [{}]}),
        (Closed, {'x-size "q"': 1}, {'x-size "q"': 1, "more": 2}),
        (Open, {"anything": [None], "more": {"a": 1}}, {"more": 1}),
        (list[Colour], ["red", "red"], ["blue"]),
    ],
)
def test_what_a_model_of_pydantic_means_is_what_answers_are_held_to(kind: Any, good: object, bad: object) -> None:
    types = pydantic.TypeAdapter(kind)
    types.validate_json(json.dumps(good))
    with pytest.raises(pydantic.ValidationError):
        types.validate_json(json.dumps(bad))
    right, wrong = (json.dumps(value, ensure_ascii=False) for value in (good, bad))
    task = Task("t", Path("task.yaml"), "", (), "json_match", (ModelSpec("m", "m"),), schema=types.json_schema())
    constraint = constraint_of(task, [Example("1", "", right, (right,))])
    assert constraint is not None and form_in_words(task, [])
    assert fault_of(constraint, right) is None and fault_of(constraint, wrong) is not None
    assert writes(constraint, right)
    assert not writes(constraint, wrong) or loosened(constraint).checked_after


def writes(constraint: Constraint, text: str) -> bool:
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar_of(constraint, ""))
    assert not matcher.is_error(), matcher.get_error()
    written = list(text.encode())
    return bool(matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting())

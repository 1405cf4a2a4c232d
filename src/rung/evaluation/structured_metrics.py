"""Metrics of answers that are read before they are compared: JSON and numbers.

A prediction and its accepted answers in, a number in [0, 1] out; of several references the best one counts. No
prediction raises. References that cannot be read raise MetricError, because a broken yardstick must not pass for a
wrong answer. Imports the standard library only.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from rung.errors import MetricError
from rung.evaluation.text_metrics import plain_text

T = TypeVar("T")

_SHOWN = 200  # characters of a bad reference in the message

# ---- JSON -------------------------------------------------------------------------------------


def json_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction is JSON with the same content as one of the references, else 0.0.

    Order is free in objects and in lists (lists compare as multisets); 1 equals 1.0 but not true; strings compare as
    in exact_match. A ```json fence that encloses the whole prediction is taken off; prose around it is not JSON.
    Raises MetricError when no reference is JSON.
    """
    expected = _read_references(references, _read_json, "JSON")
    predicted = _read_json(prediction)
    return float(predicted is not None and predicted[1] in [form for _, form in expected])


def json_fields(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Each top-level field -> 1.0 when it is right, else 0.0, against the reference that fits best.

    Fields of the reference come first, in its order; a field that only the prediction has scores 0.0. So all fields
    are 1.0 exactly when json_match is 1.0. An empty dict when the references are not objects; all 0.0 when the
    prediction is no object. Raises MetricError when no reference is JSON.
    """
    expected = [value for value, _ in _read_references(references, _read_json, "JSON") if isinstance(value, dict)]
    predicted = _read_json(prediction)
    fields = predicted[0] if predicted is not None and isinstance(predicted[0], dict) else {}

    def compare(reference: dict[str, object]) -> dict[str, float]:
        right = {k: float(k in fields and _form(fields[k]) == _form(v)) for k, v in reference.items()}
        return right | {k: 0.0 for k in fields if k not in reference}

    rank = [compare(reference) for reference in expected]
    return max(rank, key=lambda scores: sum(scores.values()) / len(scores) if scores else 1.0, default={})


_FENCE = re.compile(r"\A```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)


def _read_json(text: str) -> tuple[object, Hashable] | None:
    """(the value, its order-free form), or None when the text is not JSON. NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = text.strip()
    fence = _FENCE.match(text)
    try:
        value = json.loads(fence[1] if fence else text, parse_constant=refuse)
        return value, _form(value)
    except (ValueError, RecursionError):
        return None


def _form(value: object) -> Hashable:
    """A hashable form that is equal for equal JSON, whatever the order."""
    match value:
        case dict():
            return "object", frozenset((key, _form(item)) for key, item in value.items())
        case list():
            return "list", frozenset(Counter(map(_form, value)).items())
        case str():
            return "string", plain_text(value)
        case bool() | None:
            return "constant", value
        case _:
            return "number", value


# ---- numbers ----------------------------------------------------------------------------------


def numeric_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction's number is that of a reference, else 0.0.

    Which number of a text: the first one after the last "####", or else after the last "answer is" or "answer:", or
    else after the last "="; or else the last one in the text. Read are signs (also the typographic minus), thousands
    separators (1,234.5 and 1.234,56), a decimal comma (3,14), exponents and fractions (3/4). Units are not compared:
    $5, 5 and 5 % are equal. Digits that belong to a word (CO2, km2) are no numbers. Whole numbers must be equal, others
    within 1e-6 of the larger. Raises MetricError when no reference holds a number.
    """
    expected = _read_references(references, _read_number, "a number")
    predicted = _read_number(prediction)
    return float(predicted is not None and any(_same_number(predicted, number) for number in expected))


_STATED = (re.compile(r"####"), re.compile(r"\banswer\s*(?:is|:)", re.IGNORECASE), re.compile(r"="))
_DIGITS = (
    r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)(?:\.\d+)?"  # 1,234,567.8
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234.567,8
    r"|\d+(?:[.,]\d+)?|\.\d+)"  # 1234.5, 1234,5, .5
    r"(?:[eE][+-]?\d+)?"
)
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]])[-\u2212](?=[\d.$€£¥₹]))?(?:[$€£¥₹]\s?)?(?P<inner>(?<=[$€£¥₹])[-\u2212])?"
    rf"(?<!\w)(?P<digits>{_DIGITS})(?:\s?[/\u2044]\s?(?P<below>\d+))?"
)


def _read_number(text: str) -> int | float | None:
    """The number that the text gives as its answer, or None."""
    numbers = _numbers(text)
    if not numbers:
        return None
    last_start, last_value = numbers[-1]
    for stated in _STATED:
        ends = [mark.end() for mark in stated.finditer(text) if mark.end() <= last_start]
        if ends:
            return next(value for start, value in numbers if start >= ends[-1])
    return last_value


def _numbers(text: str) -> list[tuple[int, int | float]]:
    """(where it starts, its value) of each number in the text, in order."""
    numbers: list[tuple[int, int | float]] = []
    for match in _NUMBER.finditer(text):
        digits = re.sub(r"[\u00a0\u2009\u202f]", "", match["digits"])
        if "." in digits and "," in digits:
            group, point = sorted(",.", key=digits.index)
            digits = digits.replace(group, "").replace(point, ".")
        else:
            grouped = re.match(r"\d{1,3}(,\d{3})+(?!\d)", digits)
            digits = digits.replace(",", "" if grouped else ".")
        # int() refuses thousands of digits and float() makes them infinite: neither is an answer.
        value: int | float = int(digits) if digits.isdecimal() and len(digits) < 300 else float(digits)
        if match["below"] is not None:
            below = float(match["below"])
            value = value / below if below else math.inf
        if math.isfinite(value):
            numbers.append((match.start(), -value if match["sign"] or match["inner"] else value))
    return numbers


def _same_number(a: int | float, b: int | float) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def _read_references(references: Sequence[str], read: Callable[[str], T | None], what: str) -> list[T]:
    """The references that can be read. Raises MetricError when there are some and none can."""
    readable = [value for value in map(read, references) if value is not None]
    if references and not readable:
        raise MetricError(
            f"the right answer {references[0][:_SHOWN]!r} is not {what}, so nothing can match it. "
            "Correct the example or choose another metric."
        )
    return readable

"""Metrics of answers that are read before they are compared: JSON, tool calls and sets of labels.

A prediction and its accepted answers in, a number in [0, 1] out; of several references the best one counts. No
prediction raises. References that cannot be read raise MetricError, because a broken yardstick must not pass for a
wrong answer. An empty answer is right where a reference is empty. Imports the standard library only.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from rung.evaluation.references import empty_alike, readable
from rung.evaluation.text_metrics import label_form
from rung.text import visible

# ---- JSON -------------------------------------------------------------------------------------


def json_match(prediction: str, references: Sequence[str], *, unordered: bool = False) -> float:
    """1.0 when the prediction is JSON with the same content as one of the references, else 0.0.

    The order of keys is free. The order of lists counts (boxes, steps, routes), unless `unordered`: lists then compare
    as multisets. 1 equals 1.0 but not true; strings compare as in exact_match. A ```json fence that encloses the whole
    prediction is taken off; prose around it is not JSON. Raises MetricError when no reference is JSON.
    """
    if empty_alike(prediction, references):
        return 1.0
    read = partial(_read_json, unordered=unordered)
    expected = readable(references, read, "JSON")
    predicted = read(prediction)
    return float(predicted is not None and predicted[1] in [form for _, form in expected])


def json_fields(prediction: str, references: Sequence[str], *, unordered: bool = False) -> dict[str, float]:
    """Each top-level field -> 1.0 when it is right, else 0.0, against the reference that fits best.

    Fields of the reference come first, in its order; a field that only the prediction has scores 0.0. So all fields
    are 1.0 exactly when json_match is 1.0. An empty dict when the references are not objects; all 0.0 when the
    prediction is no object. Raises MetricError when no reference is JSON.
    """
    read = partial(_read_json, unordered=unordered)
    expected = [value for value, _ in readable(references, read, "JSON") if isinstance(value, dict)]
    predicted = read(prediction)
    fields = predicted[0] if predicted is not None and isinstance(predicted[0], dict) else {}

    def compare(reference: dict[str, object]) -> dict[str, float]:
        right = {
            k: float(k in fields and _form(fields[k], unordered) == _form(v, unordered)) for k, v in reference.items()
        }
        return right | {k: 0.0 for k in fields if k not in reference}

    rank = [compare(reference) for reference in expected]
    return max(rank, key=lambda scores: sum(scores.values()) / len(scores) if scores else 1.0, default={})


_FENCE = re.compile(r"\A```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)
_NOT_JSON = object()


def _parse(text: str) -> Any:
    """The value of the JSON text, or _NOT_JSON. NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = text.strip()
    fence = _FENCE.match(text)
    try:
        return json.loads(fence[1] if fence else text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _read_json(text: str, *, unordered: bool) -> tuple[object, Hashable] | None:
    """(the value, its form), or None when the text is not JSON."""
    value = _parse(text)
    try:
        return None if value is _NOT_JSON else (value, _form(value, unordered))
    except RecursionError:
        return None


def _form(value: object, unordered: bool) -> Hashable:
    """A hashable form that is equal for equal JSON, whatever the order of keys and, if `unordered`, of lists."""
    match value:
        case dict():
            return "object", frozenset((visible(key), _form(item, unordered)) for key, item in value.items())
        case list():
            items = [_form(item, unordered) for item in value]
            return "list", frozenset(Counter(items).items()) if unordered else tuple(items)
        case str():
            return "string", visible(value)
        case bool() | None:
            return "constant", value
        case _:
            return "number", value


# ---- tool calls -------------------------------------------------------------------------------


def tool_call_match(prediction: str, references: Sequence[str], *, unordered: bool = False) -> float:
    """1.0 when the prediction calls the same tools with the same arguments as one of the references, else 0.0.

    A call is {"name": …, "arguments": {…}}; several are a list, whose order counts unless `unordered`; one alone equals
    a list of one, and [] calls nothing. Arguments compare as by json_match; where they are given as JSON text, that is
    read. Calls as chat APIs wrap them ({"function": {…}}, {"tool_calls": […]}) and "parameters" for "arguments" are
    understood. A reference that is no JSON is an answer in words, compared as by exact_match.
    Raises MetricError when no reference is either.
    """
    if empty_alike(prediction, references):
        return 1.0

    def read(text: str) -> Hashable | None:
        value = _parse(text)
        if value is _NOT_JSON:
            return "words", visible(text)
        try:
            calls = _calls(value)
            return None if calls is None else _form(calls, unordered)
        except RecursionError:
            return None

    return float(read(prediction) in readable(references, read, 'a tool call {"name": …, "arguments": {…}}'))


def _calls(value: object) -> list[object] | None:
    """The calls of a JSON value, each {"name": …, "arguments": …}; None when one of them is no call."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    return None if None in calls else list(calls)


def _call(item: object) -> dict[str, object] | None:
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item = item["function"]
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    arguments = item.get("arguments", item.get("parameters"))
    if isinstance(arguments, str):
        parsed = _parse(arguments) if arguments.strip() else {}
        arguments = arguments if parsed is _NOT_JSON else parsed
    return {"name": item["name"], "arguments": {} if arguments is None else arguments}


# ---- sets of labels ---------------------------------------------------------------------------

_BETWEEN_LABELS = re.compile(r"[,;\n，；、]")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def label_set_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the set of labels, 2·|A ∩ B| / (|A| + |B|); 1.0 where both are empty. The mean is the F1 by examples.

    Sets are written as JSON arrays, in any order; other text is read as a list separated by commas, semicolons or
    lines. Labels compare as by label_accuracy, and one that is named twice counts once.
    Source: Godbole & Sarawagi, Discriminative methods for multi-labeled classification (2004).
    """
    predicted = _label_set(prediction)
    return max((_set_f1(predicted, _label_set(reference)) for reference in references), default=0.0)


def label_set_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the set of labels is that of one of the references, else 0.0. Read as by `label_set_f1`."""
    return float(_label_set(prediction) in map(_label_set, references))


def _set_f1(a: frozenset[str], b: frozenset[str]) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def _label_set(text: str) -> frozenset[str]:
    value = _parse(text)
    if isinstance(value, str):
        text = value
    if isinstance(value, list):
        items = [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in value]
    else:
        text = text.strip().removeprefix("[").removesuffix("]")
        items = [_BULLET.sub("", item) for item in _BETWEEN_LABELS.split(text)]
    return frozenset(form for item in items if (form := label_form(item)))

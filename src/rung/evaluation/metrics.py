"""Metrics: one prediction against its accepted answers, a number in [0, 1].

Every metric is a plain function `(prediction, references) -> float`; with several references the best one counts.
A bad prediction scores 0 and never raises. What raises `MetricError` is a broken yardstick: an unknown name, a
reference that cannot be read, a user's function that fails; those must not pass for wrong answers.

Knows nothing about examples, solutions or intervals. Imports the standard library only.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import json
import math
import re
import string
import sys
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

from rung.errors import MetricError
from rung.types import Metric

T = TypeVar("T")

METRICS: dict[str, str] = {
    "exact_match": "rung.evaluation.metrics:exact_match",
    "label_accuracy": "rung.evaluation.metrics:label_accuracy",
    "token_f1": "rung.evaluation.metrics:token_f1",
    "rouge_l": "rung.evaluation.metrics:rouge_l",
    "json_match": "rung.evaluation.metrics:json_match",
    "numeric_match": "rung.evaluation.metrics:numeric_match",
}
"""Name in task.yaml -> "module:attribute"."""


def load_metric(name: str, task_dir: Path) -> Metric:
    """The metric of that name: one of METRICS, or `python:file.py:function` with the file relative to task_dir.

    Raises MetricError when there is no such metric, file or function, or when the file cannot be imported.
    """
    if name.startswith("python:"):
        return _user_metric(name, task_dir)
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        meant = f'Did you mean "{near[0]}"? ' if near else ""
        raise MetricError(
            f'metric: there is no "{name}". {meant}Known: {", ".join(METRICS)}, or python:file.py:function.'
        )
    module, attribute = METRICS[name].split(":")
    return cast(Metric, getattr(importlib.import_module(module), attribute))


# ---- text -------------------------------------------------------------------------------------


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction is one of the references, else 0.0.

    Ignored: space around the text, how long a run of inner space is, and how accents are encoded (Unicode NFC).
    Case and punctuation count, because a house format is often exactly that.
    """
    return float(_plain(prediction) in map(_plain, references))


def label_accuracy(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction names one of the reference labels, else 0.0.

    Ignored, on both sides: case, space, quotes around the label and full stops at its end. Every other sign counts,
    so the labels "refund" and "refund?" differ; a label made of quotes and stops only ("." or "''") keeps them.
    """
    return float(_label(prediction) in map(_label, references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall, after lower case and without punctuation and articles.

    Source: Rajpurkar et al., SQuAD (2016), the official evaluate-v1.1.py. It departs in one case: where nothing is
    left of either text (the answer "A" is an article), v1.1 gives 0; here the whole texts are compared instead.
    """
    return max((_token_f1(prediction, reference) for reference in references), default=0.0)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of tokens, without stemming.

    Source: Lin, ROUGE (2004), as Google's rouge-score computes `rougeL`; equal to it on ASCII text. It departs
    beyond ASCII: rouge-score drops every character outside a-z and 0-9, here letters of every script make tokens.
    """
    return max((_rouge_l(prediction, reference) for reference in references), default=0.0)


_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "‘": "’", "«": "»"}


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _label(text: str) -> str:
    plain = _plain(text).casefold()
    label, before = plain, ""
    while label != before:
        before = label
        label = label.strip().removesuffix(".")
        if len(label) > 1 and _QUOTES.get(label[0]) == label[-1]:
            label = label[1:-1]
    return label or plain


def _squad_tokens(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _token_f1(prediction: str, reference: str) -> float:
    predicted, expected = _squad_tokens(prediction), _squad_tokens(reference)
    if not predicted and not expected:
        return float(_plain(prediction).casefold() == _plain(reference).casefold())
    return _f1((Counter(predicted) & Counter(expected)).total(), len(predicted), len(expected))


def _rouge_l(prediction: str, reference: str) -> float:
    predicted, expected = (re.findall(r"[^\W_]+", _plain(text).lower()) for text in (prediction, reference))
    return _f1(_lcs_length(predicted, expected), len(predicted), len(expected))


def _f1(common: int, predicted: int, expected: int) -> float:
    return 2 * common / (predicted + expected) if common else 0.0


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; one bit a token of `a`, so long texts stay cheap.

    Source: Hyyrö, Bit-parallel LCS-length computation revisited (2004).
    """
    where: dict[str, int] = {}
    for i, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        hit = row & where.get(token, 0)
        row = ((row + hit) | (row - hit)) & full
    return len(a) - row.bit_count()


# ---- JSON -------------------------------------------------------------------------------------


def json_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction is JSON with the same content as one of the references, else 0.0.

    Order is free in objects and in lists (lists compare as multisets); 1 equals 1.0 but not true; strings compare as
    in exact_match. A ```json fence that encloses the whole prediction is taken off; prose around it is not JSON.
    Raises MetricError when no reference is JSON.
    """
    expected = _read_references(references, _read_json, "JSON")
    found = _read_json(prediction)
    return float(found is not None and found[1] in [form for _, form in expected])


def json_fields(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Each top-level field -> 1.0 when it is right, else 0.0, against the reference that fits best.

    Fields of the reference come first, in its order; a field that only the prediction has scores 0.0. So all fields
    are 1.0 exactly when json_match is 1.0. An empty dict when the references are not objects; all 0.0 when the
    prediction is no object. Raises MetricError when no reference is JSON.
    """
    expected = [value for value, _ in _read_references(references, _read_json, "JSON") if isinstance(value, dict)]
    found = _read_json(prediction)
    fields = found[0] if found is not None and isinstance(found[0], dict) else {}

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
            return "string", _plain(value)
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
    found = _read_number(prediction)
    return float(found is not None and any(_same_number(found, number) for number in expected))


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
    found: list[tuple[int, int | float]] = []
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
            found.append((match.start(), -value if match["sign"] or match["inner"] else value))
    return found


def _same_number(a: int | float, b: int | float) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def _read_references(references: Sequence[str], read: Callable[[str], T | None], what: str) -> list[T]:
    """The references that can be read. Raises MetricError when there are some and none can."""
    readable = [value for value in map(read, references) if value is not None]
    if references and not readable:
        raise MetricError(
            f"the right answer {_short(references[0])} is not {what}, so nothing can match it. "
            "Mend the example or choose another metric."
        )
    return readable


# ---- a user's function ------------------------------------------------------------------------


def _user_metric(name: str, task_dir: Path) -> Metric:
    file, _, attribute = name.removeprefix("python:").rpartition(":")
    if not file or not attribute:
        raise MetricError(f'metric: "{name}" is not of the form python:file.py:function.')
    path = (task_dir / file).resolve()
    if not path.is_file():
        raise MetricError(f"metric: there is no file {path}. The path is relative to task.yaml.")
    module = _import_file(path)
    function = getattr(module, attribute, None)
    if not callable(function):
        own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise MetricError(f'{path}: no function "{attribute}"; functions there are {", ".join(own) or "none"}.')

    def user_metric(prediction: str, references: Sequence[str]) -> float:
        case = f"for the prediction {_short(prediction)} and the references {_short(list(references))}"
        try:
            value = function(prediction, references)
        except Exception as error:
            raise MetricError(f"{_place(path, error)}: {attribute} failed {case}: {_fact(error)}.") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, str) or not 0.0 <= number <= 1.0:
            raise MetricError(
                f"{path}: {attribute} returned {_short(value)} {case}; it must return a number in [0, 1]."
            )
        return number

    user_metric.__name__ = user_metric.__qualname__ = attribute
    return user_metric


def _import_file(path: Path) -> ModuleType:
    name = f"rung_user_metric_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MetricError(f"{path}: not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise MetricError(f"{_place(path, error)}: the file cannot be imported: {_fact(error)}.") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """The user's file, with the last of its lines on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _fact(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _short(value: object, width: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"

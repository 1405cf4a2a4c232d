"""What is wrong with an answer, in sentences that a model can write a better instruction from.

Written from the metric, the right answers, the way the answer ended and the causes that a diagnosis found. The right
answers are those of train: of a diagnosis, which looks at dev, only causes and shares are said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rung.errors import BREAKS, came
from rung.text import normal_form
from rung.types import Example, MetricInfo, Prediction

SHOWN_CHARACTERS = 600
"""Of an input or an answer; the middle of a longer one is left out."""

_MOST_REFERENCES, _MOST_KEYS = 3, 6
_LEAST_SHARE = 0.1  # of the failures; a smaller cause is not worth a word
_CAUSES = {
    "format": "the right content in a wrong form",
    "convention": "a convention that examples show and the instruction does not state",
    "knowledge": "knowledge that the model lacks",
    "reasoning": "a conclusion that takes several steps",
    "inconsistency": "answers that vary from one attempt to the next",
    "label noise": "examples that contradict each other",
}


def feedback(example: Example, answer: Prediction, metric: MetricInfo, labels: Sequence[str] | None = None) -> str:
    """What is wrong with the scored answer, and what is right, in a few sentences. labels: of the task, if any."""
    score = answer.score or 0.0
    if score >= 1.0:
        return "This is right."
    parts = _of_the_end(answer)
    if came(answer.error):
        parts += _of_the_text(answer.text, example.references, labels)
    if not metric.right_or_wrong:
        parts.append(f"It scores {score:.2f} of 1 by {metric.name}.")
    elif not parts:
        parts.append("This is wrong.")
    return " ".join([*parts, _right(example.references)])


def shortened(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """The text, or its first and last part where it is longer."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half].rstrip()} […] {text[-half:].lstrip()}"


def causes_in_words(diagnosis: Mapping[str, Any]) -> str:
    """What a diagnosis says of wrong answers, in a sentence without examples; empty where it says nothing."""
    rows = [c for c in diagnosis.get("causes", ()) if c["share"] >= _LEAST_SHARE and c["cause"] in _CAUSES]
    if not rows or diagnosis.get("poor"):
        return ""
    named = [f"{_CAUSES[c['cause']]} ({100 * c['share']:.0f} %)" for c in rows]
    return f"Experiments on other wrong answers point to: {'; '.join(named)}."


def _of_the_end(answer: Prediction) -> list[str]:
    """How the answer ended, and why it could not be scored."""
    parts = []
    if not came(answer.error):
        parts.append(f"The model gave no answer ({answer.error}).")
    elif answer.error is not None:
        parts.append(f"The answer breaks its form{answer.error.removeprefix(BREAKS).rstrip('.')}.")
    elif not answer.text:
        parts.append("The answer is empty.")
    if answer.finish == "length":
        parts.append("The answer is too long and was cut off.")
    if answer.metric_error is not None:
        parts.append(f"It could not be scored: {answer.metric_error.rstrip('.')}.")
    return parts


def _of_the_text(text: str, references: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    """How the text differs from the right answers."""
    said, right = normal_form(text), [normal_form(r) for r in references]
    if said and said in right:
        return ["Only case or space differs from the right answer."]
    if values := [v for r in references if isinstance(v := _value(r), dict | list)]:
        return _of_json(_value(text), values[0])
    if labels and said not in map(normal_form, labels):
        start = "It is none of the labels"
        return [f"{start}, though it holds the right one." if _holds(said, right) else f"{start}."]
    if _holds(said, right):
        return ["It holds the right answer among other words; nothing but the answer is wanted."]
    return []


def _holds(said: str, right: Sequence[str]) -> bool:
    """Whether a right answer stands in the text as whole words."""
    return any(_words(r).strip() and _words(r) in _words(said) for r in right)


def _words(text: str) -> str:
    """Letters and digits, each word between two spaces."""
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text).split())} "


def _of_json(value: Any, right: Any) -> list[str]:
    """What differs between two JSON values, by the keys of the right one."""
    if value is None:
        return ["It is not JSON alone."]
    if type(value) is not type(right):
        return [f"It is no JSON {'object' if isinstance(right, dict) else 'list'}."]
    if isinstance(right, list):
        return []
    missing = [k for k in right if k not in value]
    extra = [k for k in value if k not in right]
    other = [k for k in right if k in value and value[k] != right[k]]
    said = (("Keys that are missing", missing), ("Keys that do not belong there", extra), ("Wrong values of", other))
    return [f"{what}: {', '.join(map(str, keys[:_MOST_KEYS]))}." for what, keys in said if keys]


def _value(text: str) -> Any:
    """The JSON value that a text is; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _right(references: Sequence[str]) -> str:
    shown = [shortened(r) for r in references[:_MOST_REFERENCES]]
    return f"Right is: {shown[0]}" if len(shown) == 1 else f"Right is one of: {' | '.join(shown)}"

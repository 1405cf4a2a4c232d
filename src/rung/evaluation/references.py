"""Right answers that a metric reads before it compares, as JSON or a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rung.errors import MetricError
from rung.text import visible

T = TypeVar("T")

_SHOWN = 200  # characters of a bad reference in the message


def readable(references: Sequence[str], read: Callable[[str], T | None], what: str) -> list[T]:
    """The references that can be read; one that shows nothing is no reference to read.

    Raises MetricError when there are some and none can. what: "JSON", for the message.
    """
    texts = [text for text in references if visible(text)]
    found = [value for value in map(read, texts) if value is not None]
    if texts and not found:
        raise MetricError(
            f"the right answer {texts[0][:_SHOWN]!r} is not {what}, so nothing can match it. "
            "Correct the example or choose another metric."
        )
    return found


def empty_alike(prediction: str, references: Sequence[str]) -> bool:
    """Whether the prediction shows nothing and may: an empty answer is right where a reference is empty."""
    return not visible(prediction) and not all(map(visible, references))

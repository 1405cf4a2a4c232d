"""`labels` of task.yaml: a list, or a mapping from each label to its meaning; and labels that cannot be told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidatorFunctionWrapHandler

from rung.data.rows import kind_of
from rung.text import normal_form, visible


class LabelKeys(list[str]):
    """Labels in order. notes: label -> what it means, of those that have a note."""

    notes: Mapping[str, str] = MappingProxyType({})


def labels(value: Any, as_texts: ValidatorFunctionWrapHandler) -> LabelKeys:
    """A list of labels, or a mapping from each label to what it means. Raises ValueError."""
    found = LabelKeys(as_texts(list(_names(value)) if isinstance(value, dict) else value))
    if isinstance(value, dict):
        found.notes = {label: " ".join(note.split()) for label, note in value.items() if note and note.strip()}
    if len(found) < 2:
        raise ValueError("must name at least two labels. Write labels: [first, second].")
    for i, label in enumerate(found, 1):
        if not label.strip():
            raise ValueError(f"has an empty label, item {i}. Remove it.")
        if label != label.strip():
            raise ValueError(f'has spaces around item {i}, "{label}". Remove them.')
    if twins := colliding(found, visible):
        first, second = twins
        if first == second:
            i = found.index(first)
            raise ValueError(f'names "{first}" twice, items {i + 1} and {found.index(first, i + 1) + 1}. Remove one.')
        raise ValueError(
            f"holds {first!a} and {second!a}, which look the same: they differ only in characters or space "
            "that nobody sees. Keep one; answers in either spelling count as it."
        )
    return found


def colliding(found: Sequence[str], form: Callable[[str], str]) -> tuple[str, str] | None:
    """The first two labels that have one form; None where each has its own."""
    first: dict[str, str] = {}
    for label in found:
        key = form(label)
        if key in first:
            return first[key], label
        first[key] = label
    return None


def refuse_one_form(found: Sequence[str], metric: str) -> None:
    """Raises ValueError where a metric that leaves case aside would count two labels as one."""
    if twins := colliding(found, normal_form):
        first, second = twins
        raise ValueError(
            f'the labels "{first}" and "{second}" differ only in case, which {metric} leaves aside. '
            "Make them one label, or write metric: exact_match, which counts case."
        )


def _names(value: dict[Any, Any]) -> Iterator[str]:
    for label, note in value.items():
        if not isinstance(label, str):
            raise ValueError(f"has a label that YAML reads as {kind_of(label)}, not text. Quote it.")
        if note is not None and not isinstance(note, str):
            raise ValueError(f'has {kind_of(note)} as the meaning of "{label}". Write one line of text, or nothing.')
        yield label

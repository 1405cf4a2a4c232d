"""What may be wrong with labels, and with the number of examples. Names labels, never what else a row says."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from rung.data.checks.material import Material
from rung.data.examples import FEW_EXAMPLES, START_EXAMPLES
from rung.data.hidden import look
from rung.data.metric_names import CASELESS
from rung.data.rows import parse_json
from rung.text import normal_form, visible
from rung.types import Example, Finding, Task

RARE_LABEL = 4


def examples(material: Material) -> Iterator[Finding]:
    """Findings about the number of examples, then about labels."""
    yield from _whole(material.examples)
    yield from _labels(material.examples, material.task)


def has_labels(task: Task) -> bool:
    """Whether answers are labels."""
    return task.labels is not None or task.multi_label or task.metric in CASELESS


def labels_in(output: str, task: Task) -> tuple[str, ...]:
    """The labels of an answer: itself, or those of its list."""
    if not task.multi_label:
        return (output,)
    try:
        value = parse_json(output)
    except ValueError:
        return ()
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _whole(examples: Sequence[Example]) -> Iterator[Finding]:
    if len(examples) < FEW_EXAMPLES:
        message = (
            f"Only {len(examples)} examples: differences between solutions will hardly show. "
            f"{FEW_EXAMPLES} are the least that can tell very different solutions apart, and {START_EXAMPLES} are a "
            "start; smaller differences need more."
        )
        yield Finding("few_examples", "warning", "", message)


def _labels(examples: Sequence[Example], task: Task) -> Iterator[Finding]:
    if not has_labels(task):
        return
    holders: dict[str, list[str]] = {label: [] for label in task.labels or ()}
    for e in examples:
        for label in labels_in(e.output, task):
            holders.setdefault(label, []).append(e.id)
    for label, ids in holders.items():
        if not ids:
            message = f'The label "{label}" is declared but no example has it. Add examples or remove the label.'
            yield Finding("unused_label", "warning", "", message)
        elif len(ids) < RARE_LABEL:
            message = f'The label "{label}" has {_count(len(ids), "example")}. Bring {RARE_LABEL} or more.'
            yield Finding("rare_label", "warning", "", message, tuple(ids))
    yield from _collisions(holders, task)


def _collisions(holders: Mapping[str, Sequence[str]], task: Task) -> Iterator[Finding]:
    """Labels that are one to a reader or to the metric, and labels that only look like one."""
    same: dict[str, list[str]] = defaultdict(list)
    alike: dict[str, list[str]] = defaultdict(list)
    for label in holders:
        same[normal_form(label)].append(label)
    for first, *others in same.values():
        alike[look(first)].append(first)
        for other in others:
            ids = (*holders[first], *holders[other])
            pair = (
                f'"{first}" ({_count(len(holders[first]), "row")}) and "{other}" ({_count(len(holders[other]), "row")})'
            )
            if visible(first) == visible(other):
                odd = next((f", {_odd(label)}" for label in (other, first) if _odd(label)), "")
                message = f"The labels {pair} look the same{odd}. Make them one: rung check --fix OUT does."
                yield Finding("label_spelling", "error", "", message, ids)
            elif task.metric in CASELESS:
                message = (
                    f"The labels {pair} are one to the metric {task.metric}, which does not look at case. Make them "
                    "one: rung check --fix OUT does. If they are two, write metric: exact_match, to which case counts."
                )
                yield Finding("label_spelling", "error", "", message, ids)
            else:
                message = f"The labels {pair} differ only in case. Make them one, if they are."
                yield Finding("label_case", "warning", "", message, ids)
    for first, *others in alike.values():
        for other in others:
            odd = _odd(other) or _odd(first)
            message = (
                f'The labels "{first}" and "{other}" look the same, and are two: one holds {odd or "other letters"}. '
                "Write both with letters of one script, or give them names that differ."
            )
            yield Finding("label_lookalike", "warning", "", message, (*holders[first], *holders[other]))


def _odd(label: str) -> str:
    """The first character of a label that is not ASCII or shows nothing, by code point and name."""
    c = next((c for c in label if not c.isascii() and unicodedata.category(c)[0] in "CZS"), None)
    c = c or next((c for c in label if not c.isascii()), None)
    return "" if c is None else f"U+{ord(c):04X} ({unicodedata.name(c, 'without a name').lower()})"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"

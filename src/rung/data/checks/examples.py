"""What may be wrong with examples that can be read: findings about the whole, about labels, and row by row.

Knows texts and labels only. A finding names rows, never what stands in them, so that a report of findings
shows nothing of a test set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

from rung.data.examples import FEW_EXAMPLES
from rung.data.findings import bounded
from rung.data.near_duplicates import Pairs, near_duplicates, same_answers
from rung.text import units
from rung.types import Example, Finding, Task

RARE_LABEL = 4
LONG_OUTPUT_WORDS = 300

_MISSING = frozenset({"nan", "null", "none", "n/a", "#n/a", "<na>"})


def check_examples(examples: Sequence[Example], task: Task, pairs: Pairs | None = None) -> tuple[Finding, ...]:
    """Everything suspicious: first about the whole, then about labels, duplicates and rows. Never raises.

    pairs: of `near_duplicates(examples)`; None computes them. Of each check the first 200 findings are kept, and one
    more says how many there are.
    """
    return bounded(
        chain(
            _whole(examples),
            _labels(examples, task),
            _duplicates(examples, near_duplicates(examples) if pairs is None else pairs),
            chain.from_iterable(_row(example, task) for example in examples),
        )
    )


def _whole(examples: Sequence[Example]) -> Iterator[Finding]:
    if len(examples) < FEW_EXAMPLES:
        message = (
            f"Only {len(examples)} examples: differences between solutions will hardly show. "
            f"Bring {FEW_EXAMPLES} or more."
        )
        yield Finding("few_examples", "warning", "", message)


def _labels(examples: Sequence[Example], task: Task) -> Iterator[Finding]:
    if task.labels is None and task.metric != "label_accuracy":
        return
    holders: dict[str, list[str]] = {label: [] for label in task.labels or ()}
    for e in examples:
        holders.setdefault(e.output, []).append(e.id)
    for label, ids in holders.items():
        if not ids:
            message = f'The label "{label}" is declared but no example has it. Add examples or remove the label.'
            yield Finding("unused_label", "warning", "", message)
        elif len(ids) < RARE_LABEL:
            message = f'The label "{label}" has {_count(len(ids), "example")}. Bring {RARE_LABEL} or more.'
            yield Finding("rare_label", "warning", "", message, tuple(ids))
    spellings: dict[str, str] = {}
    for label in holders:
        twin = spellings.setdefault(" ".join(label.casefold().split()), label)
        if twin != label:
            message = f'The labels "{twin}" and "{label}" differ only in case or spacing. Make them one.'
            yield Finding("label_spelling", "warning", "", message, (*holders[twin], *holders[label]))


def _duplicates(examples: Sequence[Example], pairs: Pairs) -> Iterator[Finding]:
    """One finding for each pair, about its later row."""
    for i, j in pairs:
        a, b = examples[i], examples[j]
        ids = (a.id, b.id)
        same_input = (a.input, a.context) == (b.input, b.context)
        if not same_answers(a, b):
            alike = "The same input as" if same_input else "Nearly the same input as"
            message = f"{alike} {a.row}, but another answer. Decide which is right, or list both in references."
            yield Finding("conflicting_answers", "warning", b.row, message, ids)
        elif same_input and a.output == b.output:
            message = f"The same example as {a.row}. They are kept in one set."
            yield Finding("exact_duplicate", "warning", b.row, message, ids)
        else:
            message = f"Nearly the same input as {a.row}. They are kept in one set."
            yield Finding("near_duplicate", "note", b.row, message, ids)


def _row(example: Example, task: Task) -> Iterator[Finding]:
    def finding(check: str, message: str, severity: Literal["warning", "note"] = "warning") -> Finding:
        return Finding(check, severity, example.row, message, (example.id,))

    output = example.output
    words = len(units(output)) if len(output) > LONG_OUTPUT_WORDS else 0  # a word has a character at least
    if words > LONG_OUTPUT_WORDS:
        yield finding("long_output", f"The answer has {words} words; answers may be cut at the length limit.", "note")
    if output.strip() == example.input.strip():
        yield finding("output_equals_input", "The answer equals the input. Check that the columns are right.")
    if output != output.strip():
        yield finding("whitespace", "The answer starts or ends with spaces or line breaks. Remove them.", "note")
    if output.strip().casefold() in _MISSING and output not in (task.labels or ()):
        yield finding("looks_missing", "The answer looks like a missing value. Fill it in or remove the row.")
    if task.metric == "numeric_match" and not any(c.isdigit() for c in output):
        yield finding("no_number", "The answer holds no digit, but the metric is numeric_match.")
    if task.pattern is not None and re.fullmatch(task.pattern, output) is None:
        yield finding("pattern_mismatch", "The answer does not match pattern: in task.yaml. Correct one of them.")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"

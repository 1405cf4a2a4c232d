"""Checks of data that can be read: what is wrong or doubtful in it, with rows, gravity and what to do.

A check is a function from `Material` to findings, listed in `DETECTORS`. No check needs a model, and none raises.
What each kind of finding is called stands in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from rung.data.checks import answers, behaviour, coverage, duplicates, form, leakage, personal, poison, wrong_labels
from rung.data.checks import examples as labels
from rung.data.checks.material import Detector, Material
from rung.data.findings import bounded
from rung.data.near_duplicates import Pairs, near_duplicate_groups, near_duplicates
from rung.data.sensitive import sensitive
from rung.types import Example, Finding, Task

__all__ = ["DETECTORS", "Detector", "Material", "check_examples", "found_in", "near_duplicate_groups"]

Hear = Callable[[Finding], None]

ROW_DETECTORS: tuple[Detector, ...] = (
    labels.examples,
    duplicates.duplicates,
    answers.answers,
    form.form,
    behaviour.behaviour,
    poison.poison,
    personal.personal,
)
"""Those that read each row once: a second for thousands of rows."""
DETECTORS: tuple[Detector, ...] = (
    leakage.leakage,
    leakage.groups,
    leakage.corpus_holds_test,
    *ROW_DETECTORS,
    wrong_labels.wrong_labels,
    coverage.coverage,
)


def found_in(
    material: Material, detectors: Sequence[Detector] = DETECTORS, hear: Hear | None = None
) -> tuple[Finding, ...]:
    """Everything that the detectors find, in their order: of each check at most 200 findings, and how many more.

    hear: gets every finding, those too that are not listed.
    """
    everything = chain.from_iterable(detector(material) for detector in detectors)
    found = bounded(everything if hear is None else _heard(everything, hear))
    return tuple(_without_values(finding, material.task.labels or ()) for finding in found)


def _heard(findings: Iterable[Finding], hear: Hear) -> Iterator[Finding]:
    for finding in findings:
        hear(finding)
        yield finding


def _without_values(finding: Finding, labels: Sequence[str]) -> Finding:
    """The finding without personal data and secrets in its message, where a label that it names holds some."""
    message = finding.message
    for one in reversed(sensitive(message)):
        if not any(message[one.start : one.end] in label for label in labels):
            message = f"{message[: one.start]}…{message[one.end :]}"
    return finding if message == finding.message else replace(finding, message=message)


def check_examples(examples: Sequence[Example], task: Task, pairs: Pairs | None = None) -> tuple[Finding, ...]:
    """What is suspicious in examples alone: their number, labels, duplicates and rows. Never raises.

    pairs: of `near_duplicates(examples)`; None computes them.
    """
    rows = tuple(examples)
    known = near_duplicates(rows) if pairs is None else pairs
    return found_in(Material(task, {None: rows}, rows, known), ROW_DETECTORS)

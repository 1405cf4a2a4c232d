"""Lists of findings that stay short however large the data: the first ones of each check, and the number of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal

from rung.types import Finding

Severity = Literal["error", "warning", "note"]

IGNORED = "ignored"
"""The check of the note that counts what task.yaml ignores."""
KEPT = 200
"""So many findings of one check are kept, and so many ids of one finding."""


def bounded(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The first KEPT findings of each check, in order, then one for each check and severity with more: how many."""
    kept: list[Finding] = []
    listed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    left: dict[tuple[str, Severity], int] = {}
    for finding in findings:
        total[finding.check] += finding.count
        listed[finding.check] += min(finding.count, 1)
        if listed[finding.check] <= KEPT:
            kept.append(replace(finding, ids=finding.ids[:KEPT]) if len(finding.ids) > KEPT else finding)
        else:
            of_a_kind = finding.check, finding.severity
            left[of_a_kind] = left.get(of_a_kind, 0) + finding.count
    for (check, severity), number in left.items():
        message = f"{number:,} more findings of this kind ({check}) are not listed, {total[check]:,} in all."
        kept.append(Finding(check, severity, "", message, count=number))
    return tuple(kept)


def without_ignored(findings: Iterable[Finding], ignored: Collection[str]) -> tuple[Finding, ...]:
    """The findings without the warnings and notes of some checks, and a note that counts these. Errors stay."""
    kept: list[Finding] = []
    left: Counter[str] = Counter()
    for finding in findings:
        if finding.check in ignored and finding.severity != "error":
            left[finding.check] += finding.count
        else:
            kept.append(finding)
    if left:
        named = ", ".join(f"{check} ({number:,})" for check, number in left.items())
        kept.append(Finding(IGNORED, "note", "", f"Not told, as ignore: in task.yaml says: {named}.", count=0))
    return tuple(kept)

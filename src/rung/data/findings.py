"""Lists of findings that stay short however large the data: the first ones of each check, and the number of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rung.types import Finding

KEPT = 200
"""So many findings of one check are kept, and so many ids of one finding."""


def bounded(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The first KEPT findings of each check, in order, then one for each check with more, which says how many."""
    kept: list[Finding] = []
    count: Counter[str] = Counter()
    last: dict[str, Finding] = {}
    for finding in findings:
        count[finding.check] += 1
        if count[finding.check] <= KEPT:
            kept.append(replace(finding, ids=finding.ids[:KEPT]) if len(finding.ids) > KEPT else finding)
        else:
            last[finding.check] = finding
    for check, finding in last.items():
        message = (
            f"{count[check] - KEPT:,} more findings of this kind ({check}) are not listed, {count[check]:,} in all."
        )
        kept.append(Finding(check, finding.severity, "", message, count=count[check] - KEPT))
    return tuple(kept)

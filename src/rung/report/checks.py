"""The findings of the data checks as people read them: by kind, the gravest first; a page, and a few lines of it.

Knows records of findings, of this version and of earlier ones. Decides nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.data.checks.kinds import Kind, kind_of_check, measured, rank
from rung.decision.words import listed
from rung.report.lines import Line, cut, styled, wrapped
from rung.report.reading import Record
from rung.report.words import count

SCREEN_LINES = 6
"""Lines of the findings on the first screen of a run."""
SHOWN = {"error": 3, "warning": 3, "note": 3}
SHOWN_OF_MANY = {"error": 3, "warning": 2, "note": 1}
"""Rows that the page shows of each kind, by severity; of many kinds fewer."""
MANY_KINDS = 6
_LOOKS = {"error": "bold red", "warning": "yellow", "note": ""}
_FIRST_TOPIC = "leakage"
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z])")


@dataclass(frozen=True)
class FoundKind:
    """All findings of one check. severity: the gravest of theirs. count: how many there are, those not listed too.

    findings: those that name a row; one that counts all of them, if any, stands first.
    """

    check: str
    severity: str
    kind: Kind
    count: int
    findings: tuple[Record, ...]

    @property
    def summary(self) -> str:
        """What one finding says about all of them; empty where none does."""
        first = self.findings[0]
        about_all = not first.get("row") and (first.get("count", 1) == 0 or len(self.findings) == 1)
        return str(first["message"]) if about_all else ""

    @property
    def said(self) -> str:
        """The title with the number; without one where one finding is about all rows."""
        whole = self.count < 2 and not self.findings[0].get("row")
        return self.kind.title if whole else f"{self.kind.title}: {self.count:,}"


@dataclass(frozen=True)
class CheckPage:
    """What `rung check` prints. about: what was read, a line each. findings: as records. task: the task file."""

    task: Path
    about: Sequence[str]
    findings: Sequence[Record]
    next_steps: Sequence[str] = field(default=())


def by_kind(findings: Sequence[Record]) -> list[FoundKind]:
    """Findings by check: errors, then warnings, then notes; leakage first among equals."""
    own: dict[str, list[Record]] = {}
    for finding in findings:
        own.setdefault(str(finding["check"]), []).append(finding)
    found = []
    for check, some in own.items():
        severity = min((str(f["severity"]) for f in some), key=lambda s: rank(check, s))
        named = tuple(f for f in some if f.get("count", 1) < 2 or f.get("row")) or tuple(some)
        number = sum(int(f.get("count", 1)) for f in some)
        found.append(FoundKind(check, severity, kind_of_check(check), number, named))
    return sorted(found, key=lambda one: rank(one.check, one.severity))


def counted(findings: Sequence[Record]) -> str:
    """1 error, 3 warnings and 2 notes"""
    said = [count(n, severity) for severity, n in _numbers(findings).items() if n]
    return listed(said) or "no findings"


def _numbers(findings: Sequence[Record]) -> dict[str, int]:
    """Severity, the gravest first -> how many findings have it, those not listed too."""
    return {
        severity: sum(int(f.get("count", 1)) for f in findings if f["severity"] == severity)
        for severity in ("error", "warning", "note")
    }


def how_sure(check: str) -> str:
    """The share of planted faults that the check found, and of its finds that were right. Empty where not measured."""
    sure = measured().get(check)
    if sure is None:
        return ""
    said = []
    if sure.recall is not None:
        said.append(f"finds {100 * sure.recall:.0f} %")
    if sure.precision is not None:
        said.append(f"{100 * sure.precision:.0f} % right")
    return f"({', '.join(said)})" if said else ""


# ---- the first screen of a run ----------------------------------------------------------------------


def screen_lines(checks: Record, task: Record, width: int) -> list[Line]:
    """The findings in at most SCREEN_LINES lines: all kinds with their numbers, then where the rest is."""
    findings = checks.get("findings", ())
    kinds = [one for one in by_kind(findings) if one.count]
    serious = [one for one in kinds if one.severity != "note"]
    where = f"rung check {_command_path(task)}"
    if not serious:
        noted = sum(one.count for one in kinds)
        notes = f", {count(noted, 'note')}: {where}" if noted else "."
        return [(cut(f"Data checks: no warnings{notes}", width), "")]
    lines = styled(wrapped(f"Data checks: {counted(findings)}.", width, 1), "yellow")
    first = serious[0]
    grave = first if first.severity == "error" or first.kind.topic == _FIRST_TOPIC else None
    if grave is not None:
        advice = grave.summary or f"{grave.said}. {grave.kind.todo}"
        lines += styled(wrapped(advice.replace("`", ""), width, 3, bullet="! "), _LOOKS["error"])
    rest = [one for one in (*serious, *(k for k in kinds if k.severity == "note")) if one is not grave]
    lines += _packed([one.said for one in rest], width, SCREEN_LINES - len(lines) - 1)
    return [*lines, (cut(f"All of them, and what to do: {where}", width), "")]


def _packed(parts: Sequence[str], width: int, most: int) -> list[Line]:
    """As many parts as go into so many lines, separated by semicolons, and how many are left out."""
    for shown in range(len(parts), 0, -1):
        left = len(parts) - shown
        more = f"; and {count(left, 'more kind')}" if left else ""
        lines = wrapped(f"{'; '.join(parts[:shown])}{more}.", width, bullet="  ")
        if len(lines) <= most:
            return lines
    return []


def _command_path(task: Record) -> str:
    """The task file as one would type it here."""
    path = str(task.get("path") or "task.yaml")
    try:
        near = os.path.relpath(path)
    except ValueError:
        near = path
    return shlex.quote(near if len(near) < len(path) else path)


# ---- the page ---------------------------------------------------------------------------------------


def page_lines(page: CheckPage, width: int, *, every: bool = False) -> list[Line]:
    """What was read, the findings by kind with what to do and the first rows, and how to read it.

    every: all rows that are listed, not only the first of each kind.
    """
    empty: Line = ("", "")
    lines: list[Line] = []
    for number, text in enumerate(page.about):
        lines += styled(wrapped(text, width), "" if number else "bold")
    kinds = by_kind(page.findings)
    found = [one for one in kinds if one.count]
    lines.append(empty)
    if not found:
        lines += wrapped("The checks have nothing to report.", width)
    else:
        lines += styled(wrapped(f"{counted(page.findings)}, of {count(len(found), 'kind')}:", width), "bold")
    shown = SHOWN_OF_MANY if len(found) > MANY_KINDS else SHOWN
    for one in found:
        lines += [empty, *_kind_lines(one, width, None if every else shown[one.severity])]
    for one in kinds:
        if not one.count:
            lines += [empty, *(line for f in one.findings for line in wrapped(str(f["message"]), width))]
    if found:
        more = "" if every else " --all shows every row."
        sure = " In parentheses: the share of planted faults that it finds, and of its finds that were right."
        measures = sure if any(how_sure(one.check) for one in found) else ""
        how = f"In brackets: the check's name, for docs/data.md and for ignore: in task.yaml.{measures}{more}"
        lines += [empty, *styled(wrapped(how, width), "dim")]
    return lines


def _kind_lines(one: FoundKind, width: int, most: int | None) -> list[Line]:
    """A kind: its title, what to do, and so many of its rows. What all rows say at their end is not said of each."""
    name = " ".join(part for part in (one.severity.upper(), one.said, f"[{one.check}]", how_sure(one.check)) if part)
    lines = styled(wrapped(name, width), _LOOKS.get(one.severity, ""))
    rows = one.findings[1:] if one.summary else one.findings
    shown = rows[:most]
    if one.summary:
        lines += wrapped(one.summary.replace("`", ""), width, bullet="  ")
    elif one.count > 1:
        lines += wrapped(one.kind.todo.replace("`", ""), width, bullet="  ")
    said = _without_common([_SENTENCE.split(str(finding["message"])) for finding in rows])
    for finding, message in zip(shown, said, strict=False):
        row = finding.get("row") or ""
        place = "" if not row or message.startswith(f"{row}:") else f"{row}: "
        lines += wrapped(f"{place}{message}", width, 4, bullet="  - ")
    if rows and (left := one.count - sum(int(f.get("count", 1)) for f in shown)):
        lines += styled(wrapped(f"and {left:,} more", width, bullet="    "), "dim")
    return lines


def _without_common(messages: Sequence[list[str]]) -> list[str]:
    """Messages without the sentences at their ends that all of them share; each keeps its first. Not of one alone."""
    common = 0
    if len(messages) > 1:
        while all(len(m) > common + 1 for m in messages) and len({m[-1 - common] for m in messages}) == 1:
            common += 1
    return [" ".join(m[: len(m) - common]) for m in messages]


def page_record(page: CheckPage, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The page as JSON values: facts about what was read, every finding, and the kinds in the order of the page.

    Keys stay as they are from version to version: findings (check, severity, row, message, ids, count), kinds (check,
    title, severity, count, what_to_do, mended_by, recall, precision), counts.
    """
    kinds = []
    for one in by_kind(page.findings):
        sure = measured().get(one.check)
        kinds.append(
            {
                "check": one.check,
                "title": one.kind.title,
                "severity": one.severity,
                "count": one.count,
                "what_to_do": one.kind.todo,
                "mended_by": {"fix": "--fix", "mask": "--fix --mask"}.get(one.kind.mended),
                "recall": sure.recall if sure else None,
                "precision": sure.precision if sure else None,
            }
        )
    counts = {f"{severity}s": n for severity, n in _numbers(page.findings).items()}
    return {**facts, "counts": counts, "kinds": kinds, "findings": [dict(f) for f in page.findings]}

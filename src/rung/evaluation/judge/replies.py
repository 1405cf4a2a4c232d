"""Replies of a judge, read. What cannot be read is None, never a guess.

A verdict counts first where it begins a line, as it is asked for. Elsewhere it counts unless it stands behind a
quotation mark: a reason may quote what the answer says of its own grade.
"""

from __future__ import annotations

import re

from rung.evaluation.judge.prompts import GRADES

_MARKS = r"[\s\"'*_`{(\[#>-]*"
_QUOTED = r"(?:(?<![\"'“‘«„`])|(?<=\")(?=\w+\"\s*:))"  # a key of JSON is no quotation
_WORDS = r"(?:(?:the|my|final|overall|so|answer)\s+)*"
_GRADE = (
    r"\b(?:score|grade|rating)\b(?:\s*\([^()]*\))?[\s\"'*_`]*(?:is|of|[:=])?[\s\"'*_`\[]*"
    r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(\d+))?"
)
_FIRST_GRADE = re.compile(rf"(?im)^{_MARKS}{_WORDS}{_GRADE}")
_ANY_GRADE = re.compile(rf"(?i){_QUOTED}{_GRADE}")
_ALONE = re.compile(r"[\s\"'*_`(\[]*(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(\d+))?[\s\"'*_`)\].]*")
_BETTER = (
    r"\b(?:better|winner|verdict|preferred)\b[\s\"'*_`]*(?:is|[:=])[\s\"'*_`\[]*"
    r"(?:(?:an?\s+)?(tie|both|equal|neither)\b|(?:answer\s+)?((?-i:[AB])\b|[ab][\s\"'*_`)\].]*$))"
)
_FIRST_BETTER = re.compile(rf"(?im)^{_MARKS}{_WORDS}{_BETTER}")
_ANY_BETTER = re.compile(rf"(?im){_QUOTED}{_BETTER}")
_ALONE_BETTER = re.compile(r"(?i)[\s\"'*_`(\[]*(?:answer\s+)?(?:(tie)|([AB]))[\s\"'*_`)\].]*")


def grade(text: str) -> float | None:
    """The grade in [0, 1]: (g - 1) / 4 for a grade g from 1 to 5; None where there is none.

    The last "Score: g" counts, else a last line that is a number alone. A grade out of another number than 5, or
    outside 1 to 5, is none.
    """
    found = _last(text, _FIRST_GRADE, _ANY_GRADE, _ALONE)
    if found is None:
        return None
    value = float(found[1])
    if (found[2] and int(found[2]) != GRADES) or not 1 <= value <= GRADES:
        return None
    return (value - 1) / (GRADES - 1)


def preference(text: str, *, first: bool) -> float | None:
    """1 where the answer is better than the reference, 0.5 for a tie, 0 where it is worse; None where nothing is said.

    first: the answer stood as A. The last "Better: …" counts, else a last line that is A, B or tie alone.
    """
    found = _last(text, _FIRST_BETTER, _ANY_BETTER, _ALONE_BETTER)
    if found is None:
        return None
    if found[1]:
        return 0.5
    return float((found[2][0].casefold() == "a") == first)


def _last(
    text: str, begins: re.Pattern[str], anywhere: re.Pattern[str], alone: re.Pattern[str]
) -> re.Match[str] | None:
    """The last line that begins so; else a last line that is this alone; else the last place that says it."""
    lines = [line for line in text.splitlines() if line.strip()]
    in_order = (list(begins.finditer(text)), [m] if lines and (m := alone.fullmatch(lines[-1])) else [])
    return next((found[-1] for found in (*in_order, list(anywhere.finditer(text))) if found), None)

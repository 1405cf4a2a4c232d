"""Replies of a judge, read. What cannot be read is None, never a guess."""

from __future__ import annotations

import re

from rung.evaluation.judge.prompts import GRADES

_NAMED = re.compile(
    r"(?i)\b(?:score|grade|rating)\b[\s\"'*_`]*(?:is|of|[:=])?[\s\"'*_`]*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?"
)
_ALONE = re.compile(r"[\s\"'*_`(\[]*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?[\s\"'*_`)\].]*")
_BETTER = re.compile(
    r"(?i)\b(?:better|winner|verdict|preferred)\b[\s\"'*_`]*(?:is|[:=])[\s\"'*_`\[]*(?:answer\s+)?(A|B|tie|both|equal|neither)\b"
)
_ALONE_BETTER = re.compile(r"(?i)[\s\"'*_`(\[]*(?:answer\s+)?(A|B|tie)[\s\"'*_`)\].]*")


def grade(text: str) -> float | None:
    """The grade in [0, 1]: (g - 1) / 4 for a grade g from 1 to 5; None where there is none.

    The last "Score: g" counts, else a last line that is a number alone. A grade out of another number than 5, or
    outside 1 to 5, is none.
    """
    found = _NAMED.findall(text)
    if found:
        number, of = found[-1]
    else:
        alone = _ALONE.fullmatch(_last_line(text))
        if alone is None:
            return None
        number, of = alone[1], alone[2] or ""
    value = float(number)
    if (of and int(of) != GRADES) or not 1 <= value <= GRADES:
        return None
    return (value - 1) / (GRADES - 1)


def preference(text: str, *, first: bool) -> float | None:
    """1 where the answer is better than the reference, 0.5 for a tie, 0 where it is worse; None where nothing is said.

    first: the answer stood as A. The last "Better: …" counts, else a last line that is A, B or tie alone.
    """
    found = _BETTER.findall(text)
    word = found[-1] if found else None
    if word is None:
        alone = _ALONE_BETTER.fullmatch(_last_line(text))
        if alone is None:
            return None
        word = alone[1]
    if word.casefold() not in ("a", "b"):
        return 0.5
    return float((word.casefold() == "a") == first)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""

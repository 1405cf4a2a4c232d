"""Formats of JSON Schema that grammars and the check afterwards read alike, as patterns.

llguidance and jsonschema disagree about these: one wants a time zone in every time, the other takes any text with an @
for an e-mail address. The patterns let through what pydantic writes: times without a zone, parts of a second, letters
beyond ASCII.
"""

from __future__ import annotations

import re
from datetime import date

_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d(?::(?:[0-5]\d|60)(?:\.\d+)?)?(?:[Zz]|[+-][0-2]\d:?[0-5]\d)?"

PATTERNS = {
    "date-time": f"{_DATE}[Tt ]{_TIME}",
    "time": _TIME,
    "duration": r"[+-]?P(?:\d+(?:\.\d+)?[YMWD])*(?:T(?:\d+(?:\.\d+)?[HMS])+)?",
    "email": r"[^\s@]+@[^\s@]+",
    "hostname": r"[^\s/:@]+",
    "uri": r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+",
}
"""Name of a format -> what its texts match as a whole."""


def is_of_format(name: str, text: str) -> bool:
    """Whether the text is of one of these formats; a day must be in the calendar."""
    if re.fullmatch(PATTERNS[name], text, re.ASCII) is None:
        return False
    try:
        if name == "date-time":
            date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True

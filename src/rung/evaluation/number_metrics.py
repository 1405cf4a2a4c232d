"""Metrics of numbers: which quantity a text gives as its answer, and how far it is from the right one.

A quantity is a number, or a date, a time or a range, which are equal as a whole or not at all. Numbers in words
("three", "三") are not read. No prediction raises; a reference without a quantity raises MetricError, because a broken
yardstick must not pass for a wrong answer. Imports the standard library only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rung.evaluation.references import empty_alike, readable
from rung.text import pieces, without_unseen

TOLERANCE = 0.01
"""Relative error that `numeric_error` does not count, where the task gives no tolerance."""

_EQUAL = 2e-6  # relative; so that 1/3 equals 0.333333


def numeric_match(prediction: str, references: Sequence[str], *, tolerance: float | None = None) -> float:
    """1.0 when the prediction's quantity is that of a reference, else 0.0.

    Which one of a text: the first after the last "####", or else after the last "answer is" or "answer:", or else
    after the last "="; or else the last in the text. Read are digits of every script; signs (also the typographic
    minus); a decimal point or comma (3,14); thousands separated by commas, apostrophes or narrow spaces, by two points
    or more, by points before a decimal comma (1.234.567; 1.200 is 1.2), and by plain spaces where the text has no other
    number; exponents, fractions (3/4, 2 1/2, ½), percent and million. Digits that belong to a word (CO2) are no
    numbers. Whole numbers must be equal, others within 2e-6 of the larger.

    - Units are not compared: $5, 5 and 5 km are equal. 50 % equals 50 and 0.5; 5 million equals 5 and 5000000.
    - Dates (2024-01-05, 5.1.2024, January 5, 2024), times (12:30), versions (1.2.3) and ranges (5 to 7, 5–7) are equal
      as a whole only. Of "from 5 to 7" the 7 is read.

    tolerance: share of the right number by which another may differ and still be right. An empty prediction is right
    where the reference is empty. Raises MetricError when no reference holds a quantity.
    """
    return _best(prediction, references, lambda p, r: float(_same(p, r) or _relative_error(p, r) <= (tolerance or 0)))


def numeric_error(prediction: str, references: Sequence[str], *, tolerance: float = TOLERANCE) -> float:
    """1 − relative error, for answers that are measured or estimated: the nearer the better.

    1.0 where |predicted − right| ≤ tolerance · |right|; else max(0, 1 − |predicted − right| / |right|). So the mean
    score is 1 − the mean absolute percentage error, errors above 100 % counted as 100 %. Where the right number is 0,
    the error itself takes the place of the relative one. Read as by `numeric_match`; dates, times and ranges are right
    or wrong. Raises MetricError when no reference holds a quantity.
    """

    def score(predicted: Quantity, right: Quantity) -> float:
        error = 0.0 if _same(predicted, right) else _relative_error(predicted, right)
        return 1.0 if error <= tolerance else max(0.0, 1.0 - error)

    return _best(prediction, references, score)


@dataclass(frozen=True)
class Number:
    """A number as it is written. scale: what a word or sign behind it multiplies it by (0.01 for %)."""

    value: int | float
    scale: int | float = 1


Whole = tuple[str | int | float, ...]
"""A date, time, version or range: its kind and its parts."""
Quantity = Number | Whole


def _best(prediction: str, references: Sequence[str], score: Callable[[Quantity, Quantity], float]) -> float:
    if empty_alike(prediction, references):
        return 1.0
    expected: list[Quantity] = readable(references, read_quantity, "a number")
    predicted = read_quantity(prediction)
    return 0.0 if predicted is None else max((score(predicted, right) for right in expected), default=0.0)


# ---- comparison -------------------------------------------------------------------------------


def _same(a: Quantity, b: Quantity) -> bool:
    if not isinstance(a, Number) or not isinstance(b, Number):
        return a == b
    return any(x == y if _whole(x, y) else math.isclose(x, y, rel_tol=_EQUAL, abs_tol=1e-12) for x, y in _pairs(a, b))


def _relative_error(a: Quantity, b: Quantity) -> float:
    """|a − b| as a share of |b|, or of 1 where b is 0; infinite where one is no number."""
    if not isinstance(a, Number) or not isinstance(b, Number):
        return 0.0 if a == b else math.inf
    return min(abs(x - y) / (abs(y) or 1) for x, y in _pairs(a, b))


def _pairs(a: Number, b: Number) -> list[tuple[int | float, int | float]]:
    """The values to compare: scaled, and as written where the scale of one may be left out."""
    pairs = [(a.value * a.scale, b.value * b.scale)]
    return pairs if a.scale != 1 and b.scale != 1 else [(a.value, b.value), *pairs]


def _whole(x: int | float, y: int | float) -> bool:
    return isinstance(x, int) and isinstance(y, int)


# ---- reading ----------------------------------------------------------------------------------

_STATED = (re.compile(r"####"), re.compile(r"\banswer\s*(?:is|:)", re.IGNORECASE), re.compile(r"="))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?"
)
_DATE = (
    r"(?<![\w.])(?P<iso>\d{4}([-/.])\d{1,2}\2\d{1,2})(?!\d)(?:[T ](?P<at>\d{1,2}(?::\d{2}){1,2}))?"
    r"|(?<![\w.])(?P<chinese>\d{4} ?年 ?\d{1,2} ?月 ?\d{1,2}) ?日"
    r"|(?<![\w.])(?P<european>\d{1,2}([./-])\d{1,2}\6(?:\d{4}|\d{2}))(?!\d)"
    rf"|(?i:(?<![\w.])(?P<day_first>\d{{1,2}})(?:st|nd|rd|th)?\.?(?: of)? (?P<month>{_MONTH})\.?,? (?P<year>\d{{4}})"
    rf"|\b(?P<month_first>{_MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<its_year>\d{{4}}))"
)
_DOTTED = r"(?<![\w.])(?!\d{1,3}(?:\.\d{3})+(?:,\d+)?(?![\d.]))(?P<dotted>\d+(?:\.\d+){2,})"  # 1.2.3, and no thousands
_TIME = r"(?<![\w.:])(?P<time>\d+(?::\d+)+)(?![\d:])(?: ?(?P<half>[aApP])\.?[mM]\b)?"
_SPACES = "\u00a0\u2009\u202f"
_DIGITS = (
    rf"(?:\d{{1,3}}(?:[{_SPACES}'’]\d{{3}})+,(?:\d{{1,2}}|\d{{4,}})(?!\d)"  # 1 234 567,8
    rf"|\d{{1,3}}(?:[,{_SPACES}'’]\d{{3}})+(?!\d)(?:\.\d+)?"  # 1,234,567.8
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)(?:\.\d+)?"  # 12,34,567, as in India
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234.567,8
    r"|\d{1,3}(?:\.\d{3}){2,}(?![\d.]*\d)"  # 1.234.567
    r"|\d+(?:[.,]\d+)?|\.\d+)"  # 1234.5, 1234,5, .5
    r"(?:[eE][+-]?\d+)?"
)
_SCALES = {"%": 0.01, "percent": 0.01, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_NUMBER = (
    rf"(?P<sign>(?<![\w)\]])[-\u2212](?=[\d.$€£¥₹]))?(?:[$€£¥₹]\s?)?(?P<inner>(?<=[$€£¥₹])[-\u2212])?"
    rf"(?<!\w)(?:(?P<before>\d{{1,6}}) (?=\d{{1,3}}/\d{{1,3}}(?!\d)))?(?P<digits>{_DIGITS})"
    rf"(?:\s?[/\u2044]\s?(?P<below>\d+)|\s?[x×*·]\s?10(?:\^|\*\*)(?P<power>[+-]?\d{{1,3}})|\^(?P<exponent>\d{{1,2}}))?"
    rf"(?:\s?(?P<scale>(?i:{'|'.join(_SCALES)})))?"
)
_QUANTITY = re.compile(rf"{_DATE}|{_TIME}|{_DOTTED}|{_NUMBER}")
_SPACED = re.compile(r"(\D*)([1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?)(\D*)")  # 1 200, and no other number
_BETWEEN_ENDS = re.compile(r"\s*(?:[-\u2013\u2014~\u301c]|to|bis)\s*", re.IGNORECASE)
_FROM = re.compile(r"\bfrom\s+$", re.IGNORECASE)
_SIGNS = str.maketrans(
    {
        "٫": ".",
        "٬": ",",
        "٪": "%",
        "％": "%",
        "．": ".",
        "－": "-",
        "／": "/",
        "：": ":",
        "～": "~",
        "＄": "$",
        "￥": "¥",
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = re.compile("(?<=10)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")


def read_quantity(text: str) -> Quantity | None:
    """The quantity that the text gives as its answer, or None."""
    text = _plain(text)
    found = _quantities(text)
    if not found:
        return None
    last_start, last = found[-1]
    for stated in _STATED:
        ends = [mark.end() for mark in stated.finditer(text) if mark.end() <= last_start]
        if ends:
            return next(quantity for start, quantity in found if start >= ends[-1])
    return last


def _plain(text: str) -> str:
    """The text with digits and signs in ASCII, and a space where a script without spaces touches a digit."""
    if spaced := _SPACED.fullmatch(text):
        return spaced[1] + spaced[2].replace(" ", "") + spaced[3]
    if text.isascii():
        return text
    text = _POWER.sub(lambda power: "^" + power[0].translate(_SUPERSCRIPTS), without_unseen(text).translate(_SIGNS))
    text = "".join(_plain_character(c) for c in text)
    parts, end = [], 0
    for start, stop in pieces(text):
        parts.append(text[end:start] or " ")
        parts.append(text[start:stop])
        end = stop
    plain = "".join(parts).strip()
    return _plain(plain) if plain.isascii() else plain


def _plain_character(c: str) -> str:
    if c.isdecimal():
        return str(unicodedata.decimal(c))
    fraction = unicodedata.normalize("NFKC", c) if c.isnumeric() else ""
    return " " + fraction.replace("\u2044", "/") + " " if "\u2044" in fraction else c


def _quantities(text: str) -> list[tuple[int, Quantity]]:
    """(where it starts, the quantity) of each in the text, in order; the ends of a range as one."""
    found: list[tuple[int, Quantity]] = []
    end = 0  # of the last one
    for match in _QUANTITY.finditer(text):
        quantity = _date(match) or _parts(match) or _number(match)
        if quantity is None:
            continue
        before = found[-1] if found else None
        if before is not None and _is_range(before, quantity, text, end, match.start()):
            low, high = before[1], quantity
            assert isinstance(low, Number) and isinstance(high, Number)
            found[-1] = (before[0], ("range", float(low.value), float(high.value)))
        else:
            found.append((match.start(), quantity))
        end = match.end()
    return found


def _is_range(before: tuple[int, Quantity], quantity: Quantity, text: str, end: int, start: int) -> bool:
    low = before[1]
    if not isinstance(low, Number) or not isinstance(quantity, Number) or not low.value < quantity.value:
        return False
    return _BETWEEN_ENDS.fullmatch(text, end, start) is not None and not _FROM.search(text[: before[0]][-10:])


def _date(match: re.Match[str]) -> Whole | None:
    """("date", year, month, day), with the time behind it, if any. Day and month stay as written where unclear."""
    if written := match["iso"] or match["chinese"]:
        year, month, day = map(int, re.findall(r"\d+", written))
        return ("date", year, month, day, *(_clock(match["at"]) if match["at"] else ()))
    if written := match["european"]:
        first, second, year = map(int, re.findall(r"\d+", written))
        year += 0 if year > 99 else 1900 if year > 69 else 2000
        if "." in written or first > 12:
            return "date", year, second, first
        return ("date", year, first, second) if second > 12 else ("unclear date", year, first, second)
    if name := match["month"] or match["month_first"]:
        month = _MONTHS.index(name[:3].lower()) + 1
        return "date", int(match["year"] or match["its_year"]), month, int(match["day_first"] or match["day"])
    return None


def _parts(match: re.Match[str]) -> Whole | None:
    """A time, or what several points part: a version, an address, the number of a section."""
    if match["dotted"]:
        return "dotted", *(int(part[:9]) for part in match["dotted"].split("."))
    if match["time"] is None:
        return None
    parts = _clock(match["time"])
    if half := match["half"]:
        parts[0] = parts[0] % 12 + (12 if half in "pP" else 0)
    return ("time", *parts)


def _clock(text: str) -> list[int]:
    """Hours, minutes and the seconds that are not 0."""
    parts = [int(part[:9]) for part in text.split(":")]
    return parts[:2] if len(parts) == 3 and parts[2] == 0 else parts


def _number(match: re.Match[str]) -> Number | None:
    """The number, or None where it is infinite."""
    digits = re.sub(rf"[{_SPACES}'’]", "", match["digits"])
    if "." in digits and "," in digits:
        group, point = sorted(",.", key=digits.index)
        digits = digits.replace(group, "").replace(point, ".")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    else:
        grouped = re.match(r"\d{1,3}(,\d{2,3})*,\d{3}(?!\d)", digits)
        digits = digits.replace(",", "" if grouped else ".")
    # int() refuses thousands of digits and float() makes them infinite: neither is an answer.
    value: int | float = int(digits) if digits.isdecimal() and len(digits) < 290 else float(digits)
    if match["below"] is not None:
        below = float(match["below"])
        value = value / below if below else math.inf
    if match["before"] is not None:
        value += int(match["before"])
    if match["power"] is not None:
        value *= 10.0 ** int(match["power"]) if abs(int(match["power"])) < 300 else math.inf
    if match["exponent"] is not None:
        value = float(value) ** int(match["exponent"]) if abs(value) < 1e3 else math.inf
    if not math.isfinite(value):
        return None
    negative = match["sign"] or match["inner"]
    return Number(-value if negative else value, _SCALES[match["scale"].lower()] if match["scale"] else 1)

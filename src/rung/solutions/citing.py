"""Citations: numbers of passages in brackets, asked for in prompts, written into answers to learn, read out of answers.

An answer is scored without its marks, so that a solution that cites is compared with one that does not. What may be
part of the answer stays: JSON, code, a list of numbers, an answer that is nothing but a number in brackets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

CITE_NOTE = "End an answer that rests on passages with their numbers in brackets, as [2]."
"""Behind the instruction of a solution that cites."""

ROOM = 16
"""Tokens that the marks of an answer have."""

_WIDEST = 20  # passages in a range such as [1-3]
_LONGEST_TAIL = 400  # characters of the marks that an answer ends with
_NEAR = 40  # characters that hold any of the words which lead to a mark

_NAME = r"(?:passages?|sources?|documents?)\s{0,3}(?:(?:no\.|[#:])\s{0,3})?"
_ONE = rf"(?:{_NAME})?\d{{1,3}}"
_NEXT = rf"(?:\s{{0,3}}(?:[,;&–-]|,?\s{{0,3}}and\b)\s{{0,3}}{_ONE})*"
_LED = r"(?:(?:see|cf\.|from|in)\s{1,3})?"
_BARE = rf"(?:[\[【［]\s{{0,3}}{_LED}{_ONE}{_NEXT}\s{{0,3}}[\]】］]|\({_LED}{_NAME}\d{{1,3}}{_NEXT}\))"
_MARK = rf"(?:\*\*{_BARE}\*\*|{_BARE})(?![(\w])"
_MARKS = re.compile(_MARK, re.IGNORECASE)
_LEADS = (
    r"(?:see|cf\.|sources?|references?|citations?|according to|based on|as (?:said|stated|given) in|quellen?)"
    r"(?:\s{1,3}(?:the\s{1,3})?(?:passages?|sources?|documents?))?|passages?"
)
_LED_TO = re.compile(rf"\b(?:{_LEADS})\s{{0,3}}:?\Z", re.IGNORECASE)
_TAIL = re.compile(
    rf"(?P<lead>(?:\s{{0,3}}[\n,;(–—-]|(?<=[.!?]))\s{{0,3}}(?:{_LEADS})\s{{0,3}}:?)?"
    rf"(?P<marks>\s{{0,9}}{_MARK}(?:[\s,;&]{{0,3}}(?:and\s{{1,3}})?{_MARK})*)(?P<end>[\s.)]*)\Z",
    re.IGNORECASE,
)
"""The marks that an answer ends with, and words that lead to them. White space is bounded, so that an answer of nothing
else takes no time."""
_RANGE = re.compile(r"(\d+)\s*[–-]\s*(\d+)")
_SAID = re.compile(r"\b(?:in|to|by|from|of|with|per|see|both|than|and|or|between|is|are|was|were|be)\Z", re.IGNORECASE)
"""Before a mark that is a word of its sentence."""
_HELD = re.compile(r"(?:\b(?:between|is|are|was|were|be|equals?|range|interval|ci|vector|set)|[:=])\Z", re.IGNORECASE)
"""Before several numbers that are what the sentence says of something: an interval, a list."""
_BEFORE = re.compile(r"[\w.,!?;:)}\]】］\"'”’»%°…*`。！？、，；：」』）]\Z")
"""Before a mark that stands behind words; an operator of a formula or of code is none."""
_CODE = re.compile(r"[={}`]|\w\(|;\s*$", re.MULTILINE)
_SPANS = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)


@dataclass(frozen=True)
class Cited:
    """An answer without its marks. ids: of the passages that it names, in order. bad: numbers that none of them has."""

    text: str
    ids: tuple[str, ...] = ()
    bad: int = 0


def cited(text: str, shown: Mapping[int, str]) -> Cited:
    """What an answer says and what it names. shown: number -> id of the passages in its prompt.

    Marks at the end are taken for what the prompt asks for, whatever their numbers. Marks behind other words count
    where the answer names a passage that was shown. A mark that is a word of its sentence ("according to [1]") counts
    and stays. An answer of marks alone names nothing.
    """
    marks = [] if _is_json(text) else _marks(text, shown)
    if not marks or not re.search(r"\w", _without(text, marks)):
        return Cited(text)
    tail = _tail(text, marks)
    rest = text[: tail.start()] if tail is not None else text
    inside = [] if _is_json(rest) else _inside(rest, [m for m in marks if m.end() <= len(rest)])
    found = [*(m[0] for m in inside), *([tail["marks"]] if tail is not None else [])]
    numbers = list(dict.fromkeys(n for mark in found for n in _numbers(mark)))
    if tail is None and not any(n in shown for n in numbers):
        return Cited(text)
    kept = _without(rest, [m for m in inside if not _SAID.search(_near(rest, m.start()))])
    if tail is not None:
        kept = _ended(kept.rstrip(), tail["end"].strip())
    ids = tuple(dict.fromkeys(shown[n] for n in numbers if n in shown))
    return Cited(kept, ids, sum(n not in shown for n in numbers))


def with_marks(answer: str, numbers: Sequence[int]) -> str:
    """The answer with these numbers behind it, as a prompt asks for them."""
    return f"{answer} {''.join(f'[{n}]' for n in numbers)}" if numbers else answer


def _marks(text: str, shown: Mapping[int, str]) -> list[re.Match[str]]:
    """What reads as marks of passages. Brackets with a 0 are none, nor are intervals and lists: several numbers that
    stand behind words such as "is", that a mark follows, or of which none was shown."""
    found = list(_MARKS.finditer(text))
    singles = {m.start() for m in found if len(_numbers(m[0])) == 1}
    return [
        m for m in found if 0 not in _numbers(m[0]) and (m.start() in singles or not _is_value(text, m, singles, shown))
    ]


def _is_value(text: str, mark: re.Match[str], singles: Collection[int], shown: Mapping[int, str]) -> bool:
    """Whether several numbers in brackets are a part of the answer. singles: where brackets with one number begin."""
    before, behind = _near(text, mark.start()), text[mark.end() :]
    if _LED_TO.search(before):
        return False
    followed = behind[:1] == " " and len(text) - len(behind.lstrip()) in singles
    return followed or _HELD.search(before) is not None or not any(n in shown for n in _numbers(mark[0]))


def _near(text: str, at: int) -> str:
    """The words before a place."""
    return text[:at].rstrip()[-_NEAR:]


def _tail(text: str, marks: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """The marks that the text ends with; None where it ends with none, or with what may be part of an answer."""
    tail = _TAIL.search(text, max(0, len(text) - _LONGEST_TAIL))
    if tail is None or any(span.end() > tail.start("marks") for span in _SPANS.finditer(text)):
        return None
    run = _MARKS.finditer(tail["marks"])
    if not {tail.start("marks") + m.start() for m in run} <= {m.start() for m in marks}:
        return None
    before = text[: tail.start()]
    if not tail["lead"] and (_SAID.search(_near(before, len(before))) or not _BEFORE.search(before.rstrip())):
        return None
    attached = not tail["lead"] and not tail["marks"][:1].isspace() and before[-1:].isalnum()
    return None if attached and _CODE.search(text) else tail


def _ended(text: str, end: str) -> str:
    """The text with the full stop and the bracket that stood behind its marks, where it has use for them."""
    if text.count("(") <= text.count(")"):
        end = end.replace(")", "")
    return text + (end.lstrip(".") if text[-1:] in (".", "!", "?") else end)


def _inside(text: str, marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Those of the marks that stand behind words of the text. Of what looks like code, none."""
    if _CODE.search(_SPANS.sub("", text)):
        return []
    spans = [m.span() for m in _SPANS.finditer(text)]
    found = [m for m in marks if not any(a <= m.start() < b for a, b in spans)]
    alone = len(found) == 1 and "\n" not in text.strip()
    before = {m.start(): text[: m.start()].rstrip(" \t") for m in found}
    return [m for m in found if (_BEFORE.search(before[m.start()]) if before[m.start()].strip() else alone)]


def _without(text: str, marks: Sequence[re.Match[str]]) -> str:
    parts, at = [], 0
    for mark in marks:
        before = text[at : mark.start()]
        parts.append(before.rstrip(" \t") if before.strip() or at else before)
        at = mark.end()
    rest = text[at:]
    whole = "".join(parts)
    return whole + (rest if whole else rest.lstrip())


def _numbers(mark: str) -> list[int]:
    """[1, 3] -> 1, 3; [2-4] -> 2, 3, 4."""
    spread = _RANGE.sub(lambda m: _spread(int(m[1]), int(m[2])), mark)
    return [int(n) for n in re.findall(r"\d+", spread)]


def _spread(first: int, last: int) -> str:
    ends = [first, last] if not first <= last <= first + _WIDEST else range(first, last + 1)
    return " ".join(map(str, ends))


def _is_json(text: str) -> bool:
    """Whether the text is a list, a mapping or a string of JSON."""
    if text.strip()[:1] not in ("[", "{", '"'):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

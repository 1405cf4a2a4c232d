"""Python's regular expressions as the plainer ones that a grammar is made of.

A grammar is an automaton over text: it knows no look-arounds, no word borders and no back-references. They are left out
here, so that the result matches at least what the pattern matches, and are named. Python's own parser reads the
pattern, so that flags, anchors and groups mean what they mean to `re.fullmatch`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

ANYTHING = "(?s:.*)"
NO_PATTERN = (re.error, RecursionError, OverflowError)
"""What Python's `re` raises for a text that is no pattern to it."""

_META = set("\\.+*?()|[]{}^$#&-~")
_PLAIN = set(" _<>'\"%,;:=@!`/")
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w\p{No}",  # to Python, "²" belongs to words
    "CATEGORY_NOT_WORD": r"\W",
}
"""As part of a set."""
_IN_SCHEMAS = _CATEGORIES | {
    "CATEGORY_DIGIT": r"\p{Nd}",
    "CATEGORY_NOT_DIGIT": r"\P{Nd}",
    "CATEGORY_WORD": r"\p{L}\p{N}_",
    "CATEGORY_NOT_WORD": r"[^\p{L}\p{N}_]",
}
"""Inside a schema, llguidance takes `\\d` and `\\w` for those of ASCII."""
_IN_ASCII = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_NOT_DIGIT": "[^0-9]",
    "CATEGORY_SPACE": r" \t-\r",
    "CATEGORY_NOT_SPACE": r"[^ \t-\r]",
    "CATEGORY_WORD": "A-Za-z0-9_",
    "CATEGORY_NOT_WORD": "[^A-Za-z0-9_]",
}

_TIMES = {"0,": "*", "1,": "+", "0,1": "?"}
_ATOMS = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "SUBPATTERN"}
_WIDTHLESS = {"AT", "ASSERT", "ASSERT_NOT"}
_BEGINNINGS, _ENDS = {"AT_BEGINNING", "AT_BEGINNING_STRING"}, {"AT_END", "AT_END_STRING"}


def loosened_pattern(pattern: str, *, search: bool = False) -> tuple[str, tuple[str, ...]]:
    """A pattern for llguidance, matched against a whole text, and the names of what it leaves out.

    It matches at least what `re.fullmatch` matches; with search, what `re.search` matches, as inside a JSON Schema. A
    pattern that llguidance still refuses becomes one that matches anything. Raises NO_PATTERN.
    """
    parsed = _parsed(pattern)
    writer = _Writer(_IN_SCHEMAS if search else _CATEGORIES)
    flags = parsed.state.flags
    items = list(parsed)
    written = writer.searched(items, flags) if search else writer.sequence(items, flags, start=True, end=True)
    if flags & re.IGNORECASE:
        written = f"(?i:{written})"
    left_out = tuple(writer.left_out)
    return (written, left_out) if is_held(written) else (ANYTHING, (*left_out, "the pattern as a whole"))


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as Python reads it. Raises NO_PATTERN."""
    with warnings.catch_warnings():  # of what may mean something else one day
        warnings.simplefilter("ignore")
        return re.compile(pattern)


def of_python(pattern: str) -> re.Pattern[str] | None:
    """As `compiled`; None where Python does not know the pattern, such as `\\p{L}` of other dialects."""
    try:
        return compiled(pattern)
    except NO_PATTERN:
        return None


@lru_cache(maxsize=256)
def is_held(pattern: str) -> bool:
    """Whether llguidance can make a grammar of the pattern."""
    import llguidance

    try:
        grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
        return not llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar).is_error()
    except ValueError:
        return False


def matches(pattern: str, text: str, *, search: bool = False) -> bool:
    """As `re.fullmatch`, or with search `re.search`, says. Raises NO_PATTERN.

    Python may try exponentially many ways before it gives up where a repetition holds another one or alternatives, as
    `(\\w+\\s?)+` does. There, an automaton refuses most of what does not match.
    """
    known = compiled(pattern)
    if (guard := _guard(pattern, search)) is not None:
        matcher, written = guard.deep_copy(), list(text.encode(errors="replace"))
        taken = matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting()
        if not taken and not matcher.is_error():
            return False
    return (known.search if search else known.fullmatch)(text) is not None


@lru_cache(maxsize=256)
def _guard(pattern: str, search: bool) -> Any:
    """A matcher, byte by byte, of what the pattern could match; None where Python is fast."""
    import llguidance

    if not _is_slow(_parsed(pattern)):
        return None
    written, _ = loosened_pattern(pattern, search=search)
    return llguidance.LLMatcher(llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_regex(written))


def _is_slow(part: Any, *, inside: bool = False) -> bool:
    """Whether alternatives, or a repetition of any length, stand inside a repetition. part: of Python's parse tree."""
    if isinstance(part, tuple) and len(part) == 2:
        if str(part[0]) in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, items = part[1]
            return (inside and least != most) or _is_slow(items, inside=inside or most > 1)
        if str(part[0]) == "BRANCH" and inside:
            return True
    return not isinstance(part, str | int | None) and any(_is_slow(one, inside=inside) for one in part)


def _parsed(pattern: str) -> Any:
    """Python's own parse tree of a pattern, which holds its flags."""
    with warnings.catch_warnings():  # of what may mean something else one day
        warnings.simplefilter("ignore")
        return import_module("re._parser").parse(pattern)


class _Writer:
    """Writes Python's parse tree anew. left_out: what the result does not hold, in order, each once."""

    def __init__(self, categories: Mapping[str, str]) -> None:
        self.left_out: dict[str, None] = {}
        self._groups: dict[int, str] = {}
        self._categories = categories

    def searched(self, items: Sequence[Any], flags: int) -> str:
        """As `sequence`, for a pattern that may match anywhere in a text."""
        if len(items) == 1 and str(items[0][0]) == "BRANCH":
            return "|".join(self.searched(one, flags) for one in items[0][1][1])
        at = [str(where) if str(op) == "AT" else "" for op, where in items] or [""]
        start = at[0] == "AT_BEGINNING_STRING" or (at[0] == "AT_BEGINNING" and not flags & re.MULTILINE)
        end = at[-1] == "AT_END_STRING" or (at[-1] == "AT_END" and not flags & re.MULTILINE)
        written = self.sequence(items, flags, start=start, end=end)
        return f"{'' if start else ANYTHING}(?:{written}){'' if end else ANYTHING}"

    def sequence(self, items: Sequence[Any], flags: int, *, start: bool, end: bool) -> str:
        """start, end: whether nothing of the text stands before, or behind it."""
        wide = [place for place, (op, _) in enumerate(items) if str(op) not in _WIDTHLESS]
        first, last = (wide[0], wide[-1]) if wide else (len(items), -1)
        return "".join(
            self._item(str(op), value, flags, start=start and place <= first, end=end and place >= last)
            for place, (op, value) in enumerate(items)
        )

    def _item(self, op: str, value: Any, flags: int, *, start: bool, end: bool) -> str:
        match op:
            case "LITERAL":
                return _character(value)
            case "NOT_LITERAL":
                return f"[^{_character(value)}]"
            case "ANY":
                return "(?s:.)" if flags & re.DOTALL else "."
            case "IN":
                return self._set(value, flags)
            case "BRANCH":
                return "(?:" + "|".join(self.sequence(one, flags, start=start, end=end) for one in value[1]) + ")"
            case "SUBPATTERN":
                return self._group(value, flags, start=start, end=end)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                if op == "POSSESSIVE_REPEAT":
                    self._leave_out("possessive quantifiers")
                return self._repeat(value, flags, start=start, end=end)
            case "AT":
                return self._at(str(value), start=start, end=end)
            case "ATOMIC_GROUP":
                self._leave_out("atomic groups")
                return f"(?:{self.sequence(value, flags, start=start, end=end)})"
            case "GROUPREF":
                self._leave_out("back-references")
                return f"(?:{self._groups.get(value, '')})"
            case "GROUPREF_EXISTS":
                self._leave_out("back-references")
                parts = [self.sequence(part or [], flags, start=start, end=end) for part in value[1:]]
                return f"(?:{'|'.join(parts)})"
            case "ASSERT" | "ASSERT_NOT":
                self._leave_out("look-aheads" if value[0] > 0 else "look-behinds")
                return ""
            case _:
                self._leave_out("an empty set")
                return ""

    def _group(self, value: Any, flags: int, *, start: bool, end: bool) -> str:
        number, added, removed, items = value
        inside = self.sequence(items, (flags | added) & ~removed, start=start, end=end)
        if number is not None:
            self._groups[number] = inside
        case = "i" if added & re.IGNORECASE else "-i" if removed & re.IGNORECASE else ""
        return f"(?{case}:{inside})"

    def _repeat(self, value: Any, flags: int, *, start: bool, end: bool) -> str:
        least, most, items = value
        once = most == 1
        inside = self.sequence(items, flags, start=start and once, end=end and once)
        if inside == "":
            return ""
        upper = "" if str(most) == "MAXREPEAT" else str(int(most))
        times = f"{least}" if str(least) == upper else f"{least},{upper}"
        is_atom = len(items) == 1 and str(items[0][0]) in _ATOMS
        return (inside if is_atom else f"(?:{inside})") + _TIMES.get(times, f"{{{times}}}")

    def _at(self, where: str, *, start: bool, end: bool) -> str:
        if not ((where in _BEGINNINGS and start) or (where in _ENDS and end)):
            self._leave_out("anchors inside" if where in _BEGINNINGS | _ENDS else "word borders")
        return ""

    def _set(self, items: Sequence[Any], flags: int) -> str:
        categories = _IN_ASCII if flags & re.ASCII else self._categories
        parts = []
        for op, value in items:
            match str(op):
                case "NEGATE":
                    parts.append("^")
                case "LITERAL":
                    parts.append(_character(value))
                case "RANGE":
                    parts.append(f"{_character(value[0])}-{_character(value[1])}")
                case "CATEGORY":
                    parts.append(categories[str(value)])
        return f"[{''.join(parts)}]"

    def _leave_out(self, name: str) -> None:
        self.left_out[name] = None


def _character(code: int) -> str:
    character = chr(code)
    if (character.isascii() and character.isalnum()) or character in _PLAIN:
        return character
    return f"\\{character}" if character in _META else f"\\x{{{code:x}}}"

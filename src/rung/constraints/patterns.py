"""Python's regular expressions as the plainer ones that a grammar is made of.

A grammar is an automaton over text: it knows no look-arounds, no word borders and no back-references. They are left out
here, so that the result matches at least what the pattern matches, and are named. Python's own parser reads the
pattern, so that flags, anchors and groups mean what they mean to `re.fullmatch`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

ANYTHING = "(?s:.*)"

_META = set("\\.+*?()|[]{}^$#&-~")
_PLAIN = set(" _<>'\"%,;:=@!`/")
_CATEGORIES = {
    "CATEGORY_DIGIT": (r"\d", "0-9"),
    "CATEGORY_NOT_DIGIT": (r"\D", "[^0-9]"),
    "CATEGORY_SPACE": (r"\s", r" \t-\r"),
    "CATEGORY_NOT_SPACE": (r"\S", r"[^ \t-\r]"),
    "CATEGORY_WORD": (r"\w\p{No}", "A-Za-z0-9_"),  # to Python, "²" belongs to words
    "CATEGORY_NOT_WORD": (r"\W", "[^A-Za-z0-9_]"),
}
"""Unicode, and with the flag ASCII; as part of a set."""

_TIMES = {"0,": "*", "1,": "+", "0,1": "?"}
_ATOMS = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "SUBPATTERN"}
_WIDTHLESS = {"AT", "ASSERT", "ASSERT_NOT"}
_BEGINNINGS, _ENDS = {"AT_BEGINNING", "AT_BEGINNING_STRING"}, {"AT_END", "AT_END_STRING"}


def loosened_pattern(pattern: str, *, search: bool = False) -> tuple[str, tuple[str, ...]]:
    """A pattern for llguidance, matched against a whole text, and the names of what it leaves out.

    It matches at least what `re.fullmatch` matches; with search, what `re.search` matches. A pattern that llguidance
    still refuses becomes one that matches anything. Raises re.error.
    """
    with warnings.catch_warnings():  # of what may mean something else one day
        warnings.simplefilter("ignore")
        parsed = import_module("re._parser").parse(pattern)
    writer = _Writer()
    flags = parsed.state.flags
    items = list(parsed)
    written = writer.searched(items, flags) if search else writer.sequence(items, flags, start=True, end=True)
    if flags & re.IGNORECASE:
        written = f"(?i:{written})"
    left_out = tuple(writer.left_out)
    return (written, left_out) if is_held(written) else (ANYTHING, (*left_out, "the pattern as a whole"))


def is_held(pattern: str) -> bool:
    """Whether llguidance can make a grammar of the pattern."""
    import llguidance

    try:
        grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
        return not llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar).is_error()
    except ValueError:
        return False


class _Writer:
    """Writes Python's parse tree anew. left_out: what the result does not hold, in order, each once."""

    def __init__(self) -> None:
        self.left_out: dict[str, None] = {}
        self._groups: dict[int, str] = {}

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
                return _set(value, flags)
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

    def _leave_out(self, name: str) -> None:
        self.left_out[name] = None


def _set(items: Sequence[Any], flags: int) -> str:
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
                parts.append(_CATEGORIES[str(value)][bool(flags & re.ASCII)])
    return f"[{''.join(parts)}]"


def _character(code: int) -> str:
    character = chr(code)
    if (character.isascii() and character.isalnum()) or character in _PLAIN:
        return character
    return f"\\{character}" if character in _META else f"\\x{{{code:x}}}"

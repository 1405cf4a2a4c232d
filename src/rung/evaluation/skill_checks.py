"""Checks of answers to the general prompts: (answer, parameters of the row) -> whether it does what was asked.

`CHECKS` gives each check its name in `skills.jsonl`. No check raises for a bad answer. A format may stand in a Markdown
fence. Knows nothing about models or which prompts there are. Imports the standard library only.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rung.evaluation.number_metrics import numeric_match


def passes(text: str, spec: Mapping[str, Any]) -> bool:
    """Whether the answer passes a check. spec: its name in CHECKS as "type", and its parameters."""
    parameters = {key: value for key, value in spec.items() if key != "type"}
    return CHECKS[spec["type"]](text, **parameters)


def all_of(text: str, checks: Iterable[Mapping[str, Any]]) -> bool:
    """Every one of these checks accepts the answer."""
    return all(passes(text, spec) for spec in checks)


def word_count(text: str, least: int, most: float = math.inf) -> bool:
    """Between least and most words, separated by space; a dash or a star on its own is not a word."""
    return least <= sum(bool(re.search(r"\w", part)) for part in text.split()) <= most


def sentence_count(text: str, n: int) -> bool:
    """Exactly n sentences; the last one may lack its full stop."""
    return sum(bool(re.search(r"\w", part)) for part in re.split(r"[.!?…]+(?=\W|$)", text)) == n


def line_count(text: str, n: int) -> bool:
    """Exactly n lines; empty lines do not count."""
    return len(_lines(text)) == n


def contains(text: str, words: Sequence[str]) -> bool:
    """Every one of the words or phrases stands in the answer, whatever its case."""
    return all(_finds(text, word) for word in words)


def mentions(text: str, any_of: Sequence[str]) -> bool:
    """At least one of the words or phrases stands in the answer, whatever its case."""
    return any(_finds(text, word) for word in any_of)


def lacks(text: str, words: Sequence[str]) -> bool:
    """None of the words stands in the answer; a single character is searched inside words too."""
    return not any(word in text.casefold() if len(word) == 1 else _finds(text, word) for word in words)


def starts(text: str, start: str) -> bool:
    """The answer begins with exactly this."""
    return text.lstrip().startswith(start)


def ends(text: str, end: str) -> bool:
    """The answer ends with exactly this."""
    return text.rstrip().endswith(end)


def cased(text: str, case: Literal["upper", "lower"]) -> bool:
    """At least three letters, all of them upper case (or lower case)."""
    letters = [c for c in text if c.isalpha()]
    return len(letters) >= 3 and all(c.isupper() if case == "upper" else c.islower() for c in letters)


def says(text: str, any_of: Sequence[str]) -> bool:
    """The whole answer is one of these; quotes around it and a full stop at its end do not count, case does."""
    return _bare(text) in any_of


def sequence(text: str, words: Sequence[str]) -> bool:
    """The words of the answer are these, in this order and no others; case and punctuation do not count."""
    return re.findall(r"\w+", text.casefold()) == [word.casefold() for word in words]


def answers_yes_no(text: str, answer: Literal["yes", "no"]) -> bool:
    """The first word is the right one of yes and no."""
    return re.findall(r"[^\W\d_]+", text.casefold())[:1] == [answer]


def picks(text: str, right: str, wrong: Sequence[str]) -> bool:
    """The answer names the right option, and names it before any wrong one."""
    options = "|".join(re.escape(option) for option in (right, *wrong))
    first = re.search(rf"(?<!\w)(?:{options})(?!\w)", text, re.IGNORECASE)
    return first is not None and first[0].casefold() == right.casefold()


def number(text: str, value: float) -> bool:
    """The answer gives this number, read as the metric numeric_match reads it."""
    return numeric_match(text, [str(value)]) == 1.0


def items(text: str, n: int, marker: Literal["any", "-", "1."] = "any", alone: bool = False) -> bool:
    """A list of n lines, each with its marker: a bullet or a number (any), a hyphen (-), or 1. to n. in order (1.).

    alone: nothing else may stand in the answer.
    """
    lines = _lines(text)
    marks = [m[1] for line in lines if (m := re.match(r"\s*([-*+•]|\d+[.)])\s+\S", line))]
    wanted = {"-": ["-"] * n, "1.": [f"{i}." for i in range(1, n + 1)], "any": marks}[marker]
    return len(marks) == n and marks == wanted and (len(lines) == n or not alone)


def json_object(text: str, keys: Sequence[str], values: Mapping[str, Any] | None = None) -> bool:
    """One JSON object with exactly these keys, no value empty, and the values that are given."""
    answer = _json(text)
    if not isinstance(answer, dict) or set(answer) != set(keys) or any(v in (None, "") for v in answer.values()):
        return False
    return all(_same(answer[key], value) for key, value in (values or {}).items())


def json_array(
    text: str, n: int, of: Literal["string", "number"] = "string", values: Sequence[Any] | None = None
) -> bool:
    """One JSON array of n strings (none empty) or n numbers, and the values that are given, in order."""
    answer = _json(text)
    if not isinstance(answer, list) or len(answer) != n:
        return False
    if of == "number":
        right = all(isinstance(item, int | float) and not isinstance(item, bool) for item in answer)
    else:
        right = all(isinstance(item, str) and item.strip() for item in answer)
    return right and (values is None or all(map(_same, answer, values)))


def csv_line(text: str, n: int, values: Sequence[str] | None = None) -> bool:
    """One line of n fields separated by commas, none empty, and the values that are given, whatever their case."""
    lines = _lines(_block(text))
    if len(lines) != 1:
        return False
    try:
        fields = [field.strip() for field in next(csv.reader(lines, skipinitialspace=True))]
    except csv.Error:  # a quoted field that does not end
        return False
    return len(fields) == n and all(fields) and (values is None or all(map(_same, fields, values)))


def key_lines(text: str, keys: Sequence[str], values: Mapping[str, str] | None = None) -> bool:
    """One line `key: value` for each key, in order and nothing else, no value empty, and the values that are given."""
    pairs = [line.strip().partition(":") for line in _lines(_block(text))]
    fields = {key: value.strip() for key, _, value in pairs}
    if [key for key, _, _ in pairs] != list(keys) or not all(fields.values()):
        return False
    return all(_same(fields[key], value) for key, value in (values or {}).items())


def iso_date(text: str, value: str | None = None) -> bool:
    """A date that exists, written YYYY-MM-DD and nothing else; that day, where one is given."""
    bare = _bare(_block(text))
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", bare):
        return False
    try:
        datetime.date.fromisoformat(bare)
    except ValueError:
        return False
    return value is None or bare == value


def matches(text: str, pattern: str) -> bool:
    """The whole answer, without space around it, has this form."""
    return re.fullmatch(pattern, text.strip()) is not None


def declines(text: str) -> bool:
    """Says, within the first three sentences, that it does not know or that there is no such thing.

    Asking what was meant counts, too; "I am not sure, but I think it was 1873" does not: that is an answer.
    """
    plain = text.replace("’", "'").casefold()
    opening = " ".join(re.split(r"(?<=[.!?])\s", plain, maxsplit=3)[:3])
    return bool(_DECLINES.search(opening)) and not _GUESSES.search(plain)


CHECKS: dict[str, Callable[..., bool]] = {
    "all_of": all_of,
    "word_count": word_count,
    "sentence_count": sentence_count,
    "line_count": line_count,
    "contains": contains,
    "mentions": mentions,
    "lacks": lacks,
    "starts": starts,
    "ends": ends,
    "cased": cased,
    "says": says,
    "sequence": sequence,
    "answers_yes_no": answers_yes_no,
    "picks": picks,
    "number": number,
    "items": items,
    "json_object": json_object,
    "json_array": json_array,
    "csv_line": csv_line,
    "key_lines": key_lines,
    "iso_date": iso_date,
    "matches": matches,
    "declines": declines,
}
"""Name in skills.jsonl -> check."""


# ---- reading an answer ------------------------------------------------------------------------

_NOT = r"(?:do not|don't|did not|didn't|cannot|can't|can not|could not|couldn't|have not|haven't|am unable to)"
_ABSENT = (
    r"(?:fictional|fictitious|imaginary|invented(?! by| in| at| for)|made[- ]up(?! of)|"
    r"non-?existent|hypothetical|unknown|unclear)"
)
_DECLINES = re.compile(
    "|".join(
        [
            # the speaker does not know
            rf"\b(?:i|we)(?: \w+){{0,2}} {_NOT}(?: \w+){{0,2}} "
            r"(?:know|find|recogni[sz]e|verify|confirm|recall|identify|locate|answer|say|tell|provide|determine|"
            r"have|come|heard|seen|encountered|give|place)\b",
            r"^\W*(?:sorry\W+)?(?:do not|don't) know\b",
            r"\b(?:not|isn't|aren't) (?:\w+ )?(?:aware|familiar|sure|certain|able to|equipped)\b",
            r"\b(?:unaware|unfamiliar|unsure|uncertain|unable to|no idea|no clue|no knowledge|never heard)\b",
            r"\bbeyond (?:my|what i)\b|\b(?:outside(?: of)?|not in|not part of) my (?:knowledge|training)\b",
            r"\b(?:have|has|find|found) no (?:\w+ )?(?:information|records?|data|details|mention|trace|evidence)\b",
            # nobody knows
            r"\b(?:nobody|no one|no-one) (?:can )?(?:knows?|say|tell)\b|\bimpossible to (?:know|say|tell|answer)\b",
            r"\bcan(?:not|'t| not) be (?:known|answered|determined|verified|found|confirmed)\b",
            r"\bnot (?:(?!only)\w+ly )?(?:known|recorded|documented|available)\b",
            # there is no such thing
            r"\b(?:does|do|did)(?: not|n't)(?: \w+){0,3} (?:exist|be real|ring a bell|correspond)\b",
            r"\b(?:never|not|n't)(?: \w+)? (?:existed|happened|occurred|taken place)\b",
            r"\b(?:never|not|n't)(?: yet)? been (?:held|made|written|played)\b",
            r"\bno such\b|\bno (?:record of|information (?:on|about))\b",
            r"\bthere (?:is|are|was|were|has been)(?: currently)?(?: no\b| not\b|n't)|\bthere(?:'s| has) (?:no|not)\b",
            rf"\b(?:is|are|was|be|seems?|sounds?|appears?|'s)(?: to be)?(?: \w+)?(?: an?)? {_ABSENT}\b",
            r"\b(?:not|isn't|wasn't)(?: actually| really)?(?: an?| the)? (?:real|actual|genuine|known|recogni[sz]ed)\b",
            r"\b(?:is|lies) (?:still )?in the future\b|\b(?:predict|know|see) the future\b|\bnot yet come\b",
            # a question back
            r"\b(?:could|can|would) you (?:please )?(?:\w+ )?(?:provide|clarify|give|tell|share|check|explain)\b",
            r"\bplease (?:provide|clarify|check|give)\b|\bneed (?:\w+ )?more\b|\bdo you mean\b",
        ]
    )
)
_GUESSES = re.compile(
    r"\b(?:but|however|though|although|still)\b[^.!?]{0,40}?"
    r"\b(?:i (?:think|believe|guess|suppose|would (?:say|guess))|my guess|probably|likely|perhaps|maybe|"
    r"(?:it|he|she|they)(?: (?:is|was|were|has)|'s) (?!possible|not|unlikely|no\b))"
)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def _block(text: str) -> str:
    """The text inside the first Markdown fence, without prose around it; the whole answer where there is none."""
    fence = _FENCE.search(text)
    return fence[1] if fence else text


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _finds(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _bare(text: str) -> str:
    """The text without space and quotes around it and without one full stop at its end."""
    return text.strip().removesuffix(".").strip("\"'`“”").removesuffix(".")


def _same(answer: object, value: object) -> bool:
    """Whether both are equal. Case and outer space of strings do not count; true is not 1."""
    if isinstance(answer, str) and isinstance(value, str):
        return answer.strip().casefold() == value.casefold()
    return isinstance(answer, bool) == isinstance(value, bool) and answer == value


def _json(text: str) -> object:
    """The value of an answer that is JSON; None otherwise."""
    try:
        return json.loads(_block(text))
    except (ValueError, RecursionError):
        return None

"""Answers that say that there is none: those that refuse, and those that do not know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from rung.data.checks import phrases
from rung.text import normal_form, units

LEAST_ROWS, LEAST_SHARE = 5, 0.02
"""From so many rows and such a share of all on, an answer is a usual one."""
_LONG_ENOUGH = 8  # characters of an `abstain` that may stand in front of more words
_UNKNOWN = re.compile(
    r"^\W*(?:(?:i'm |i am )?sorry\W+)?(?:but )?(?:"
    r"(?:i|we) (?:do not|don't|cannot|can't|could not|couldn't) (?:really |actually )?(?:know|determine)\b"
    r"|i (?:do not|don't|cannot|can't|could not|couldn't) (?:tell|say|(?:find|see) (?:that|this|it|an?|any|the) ?)"
    r"|(?:the |this |that )?(?:\w+ ){0,2}(?:is |are |was |were )?not (?:known(?! for| as| to)|given|stated|mentioned"
    r"|specified|provided|available|found|answerable|in the (?:passage|document|text|context))"
    r"|(?:the |these |this |those |provided |given |above )*(?:passages?|documents?|texts?|contexts?|information)"
    r"(?: provided)? (?:do not|does not|don't|doesn't|did not|didn't|is not|isn't|are not|aren't)\b"
    r"|(?:there is )?(?:no|not enough|insufficient) (?:answer|information|mention|data|evidence)\b"
    r"|unknown\W*$|unanswerable\b|unclear\W*$|n/?a\W*$|none of (?:the|these) (?:passages|documents)\b"
    r"|(?:das )?(?:weiß|weiss) ich nicht|ich weiß (?:es )?nicht|keine (?:angabe|antwort|information)"
    r"|je ne sais pas|aucune (?:information|r[ée]ponse)|no (?:lo )?sé\b|no se (?:menciona|indica)"
    r"|non lo so|n[aã]o sei|ik weet het niet|不知道|未提及|無法|无法|わかりません|分かりません|모르겠)",
    re.I,
)
"""Beginnings of an answer that says that there is none."""


def says_nothing(text: str, abstain: str | None = None) -> bool:
    """Whether an answer is empty, is or begins with `abstain`, refuses, or says that it does not know."""
    plain = normal_form(text).replace("’", "'")
    if not units(plain):
        return True
    if abstain is not None and _is_or_begins_with(units(plain), units(abstain), len(abstain) >= _LONG_ENOUGH):
        return True
    return bool(_UNKNOWN.match(plain)) or phrases.refuses(text)


def _is_or_begins_with(said: Sequence[str], abstain: Sequence[str], may_go_on: bool) -> bool:
    return said == abstain or (may_go_on and bool(abstain) and said[: len(abstain)] == abstain)


def usual_refusal(counts: Mapping[str, int]) -> tuple[str, int] | None:
    """The answer that most often says that there is none, as it is mostly written, and its rows, however written.

    None where it is rare, or no answer does. counts: answer -> its rows.
    """
    written: dict[tuple[str, ...], Counter[str]] = {}
    for text, rows in counts.items():
        if text.strip() and says_nothing(text):
            written.setdefault(tuple(units(text)), Counter())[text.strip()] += rows
    if not written:
        return None
    most = max(written.values(), key=Counter.total)
    if most.total() < max(LEAST_ROWS, LEAST_SHARE * sum(counts.values())):
        return None
    return most.most_common(1)[0][0], most.total()

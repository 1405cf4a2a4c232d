"""Characters that show nothing, where no script has need of them; and letters that look like others.

Persian and Indic scripts need joiners, emoji are joined and coloured by them, Thai and Khmer mark words with zero-width
spaces, right-to-left text needs marks, shorthand and music need their signs of form: there they count for nothing.
Source for letters that look alike: Unicode Technical Standard 39, of which the Greek and Cyrillic letters that look
like Latin ones are taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from rung.text import UNSEEN, visible

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")
_OF_NOTATION = re.compile("[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]")  # shorthand and music
_SOFT_HYPHEN = "\u00ad"
_MARKS = "\u200e\u200f\u061c"
_OVERRIDES = re.compile("[\u202a\u202b\u202d\u202e]")
_TAGS = re.compile("[\U000e0000-\U000e007f\U000e0100-\U000e01ef]")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")  # flags of England, Scotland and Wales
_WORD_BREAKING = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefe]")

_LOOKS_LIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеіјорсухѕԁһԛԝɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ",
    "ABESIJKMHOPCTYXaeijopcyxsdhqwgABEZHIKMNOPTYXovp",
)
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_LOOK_ALIKES = re.compile(f"[{''.join(map(chr, _LOOKS_LIKE))}]")
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f]")
_WORDS = re.compile(r"[^\W\d_]+")


def hidden_in(text: str) -> list[int]:
    """Places of characters that show nothing and that the text around them has no need of."""
    if text.isascii():
        return []
    flags = {place for match in _FLAG.finditer(text) for place in range(match.start() + 1, match.end())}
    right_to_left = _RIGHT_TO_LEFT.search(text) is not None
    return [
        place
        for match in UNSEEN.finditer(text)
        if (place := match.start()) not in flags and not _is_needed(text, place, right_to_left)
    ]


def without_hidden(text: str) -> str:
    """The text without the characters that `hidden_in` finds."""
    places = set(hidden_in(text))
    return "".join(c for place, c in enumerate(text) if place not in places) if places else text


def named(text: str) -> str:
    """The hidden characters of a text by code point, with their number: U+200B zero width space (3 times)."""
    counts = Counter(text[place] for place in hidden_in(text))
    said = [
        f"U+{ord(c):04X} {unicodedata.name(c, 'without a name').lower()}" + (f" ({n} times)" if n > 1 else "")
        for c, n in counts.most_common(3)
    ]
    return ", ".join(said) + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")


def changes_reading(text: str) -> bool:
    """Whether hidden characters turn the direction of text, or spell a message of their own."""
    return any(_OVERRIDES.match(text, place) or _TAGS.match(text, place) for place in hidden_in(text))


def disguises(text: str) -> bool:
    """Whether hidden characters make a text another one to a program: they stand inside words, or change its reading.

    Elsewhere they are what web pages and apps leave behind: marks at line ends, variation selectors, isolates of names.
    """
    places = set(hidden_in(text))

    def stands_in_word(place: int) -> bool:
        before, after = place - 1, place + 1
        while before in places:
            before -= 1
        while after in places:
            after += 1
        return before >= 0 and text[before].isalnum() and text[after : after + 1].isalnum()

    return changes_reading(text) or any(text[p] != _SOFT_HYPHEN and stands_in_word(p) for p in places)


def look(text: str) -> str:
    """How a text looks: what a reader sees of it, case aside, Greek and Cyrillic letters as Latin ones."""
    return visible(text).translate(_LOOKS_LIKE).casefold()


def mixed_words(text: str) -> int:
    """Number of words in which Latin letters stand beside Greek or Cyrillic ones that look like Latin ones."""
    if text.isascii() or not _LOOK_ALIKES.search(text):
        return 0
    return sum(_is_mixed(match.group()) for match in _WORDS.finditer(text))


def _is_mixed(word: str) -> bool:
    foreign = _FOREIGN.findall(word)
    return len(word) > 2 and bool(foreign) and bool(_LATIN.search(word)) and all(map(_LOOK_ALIKES.match, foreign))


def _is_needed(text: str, place: int, right_to_left: bool) -> bool:
    c = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if c in _MARKS:
        return right_to_left
    if _OF_NOTATION.match(c):
        return True
    if "\u2066" <= c <= "\u2069" or "\u202a" <= c <= "\u202c":
        return right_to_left
    if c == "\u200b":
        return bool(_WORD_BREAKING.match(before) or _WORD_BREAKING.match(after))
    if c in "\u200c\u200d":
        return bool(_JOINING.match(before)) or _is_symbol(before) or _is_symbol(after)
    if "\ufe00" <= c <= "\ufe0f":
        return bool(before) and not UNSEEN.match(before) and not _LATIN.match(before)
    if "\u17b4" <= c <= "\u17b5" or "\u180b" <= c <= "\u180f":
        return bool(re.match("[\u1780-\u18af]", before))
    if "\U000e0100" <= c <= "\U000e01ef":
        return bool(re.match("[\u3400-\u9fff]", before))
    return c == "\u3164" and len(text.strip()) == 1


def _is_symbol(c: str) -> bool:
    """An emoji, or what follows one."""
    return bool(c) and (unicodedata.category(c) in ("So", "Sk", "Mn") or "\ufe00" <= c <= "\ufe0f" or c in "♀♂")

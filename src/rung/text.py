"""Words of a text in any script: the one tokeniser of search, chunking and near-duplicates.

Most scripts put spaces between words. Chinese, Japanese, Thai, Lao, Khmer and Burmese do not: their text is taken
character by character, and in pairs of neighbours, which is what search engines do without a dictionary.
Source for pairs: Nie, Gao, Zhang & Zhou, On the use of words and n-grams for Chinese information retrieval (2000).
All of it works on one normal form: texts that look the same have the same words.
Knows nothing of models: these are not the tokens of a language model.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

# Marks that join the letter before them (vowel signs, accents); Python's \w leaves them out, and cuts Hindi words.
_MARKS = "\u200c\u200d" + "".join(chr(c) for c in range(0x300, 0x3100) if unicodedata.category(chr(c))[0] == "M")
_HAN_AND_KANA = (
    "\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_THAI_LAO_BURMESE_KHMER = (
    "\u0e01-\u0e2e\u0e30-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0edf"
    "\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17d7\u17dc\u17dd\u17e0-\u17e9"
)
_UNSPACED = _HAN_AND_KANA + _THAI_LAO_BURMESE_KHMER
_CHARACTER = rf"[{_UNSPACED}][{_MARKS}]*"
_WORD = rf"[^\W{_UNSPACED}]+(?:[{_MARKS}]+[^\W{_UNSPACED}]*)*"
# Punctuation of sentences and quotations says nothing; any other sign may ("2 + 2", "2 - 2").
_SIGN = rf"""[^\w\s{_MARKS}.,;:!?'"“”‘’«»…。、・「」『』]"""

_CHARACTERS = re.compile(_CHARACTER)
_UNITS = re.compile(f"{_CHARACTER}|{_WORD}")
_UNITS_AND_SIGNS = re.compile(f"{_CHARACTER}|{_WORD}|{_SIGN}")
_RUNS = re.compile(f"((?:{_CHARACTER})+)|{_WORD}")
_PIECES = re.compile(rf"{_CHARACTER}|[^\s{_UNSPACED}]+")
_HANGUL = re.compile("[\uac00-\ud7a3]{2,}")
_TRADE_MARKS = re.compile("[\u2120\u2122]")  # NFKC makes letters of them, which would stick to the word before
_ASCII_UNITS = re.compile(r"\w+")
_ASCII_UNITS_AND_SIGNS = re.compile(r"""\w+|[^\w\s.,;:!?'"]""")


UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing (Unicode's Default_Ignorable_Code_Point)."""
NORMAL_FORM = 1
"""Version of `visible` and `normal_form`, for the records of runs."""


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which is no character and cannot be written as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def visible(text: str) -> str:
    """What a reader sees of a text: NFKC, without characters that show nothing, and runs of space as one space."""
    return " ".join(seen(text).split())


def seen(text: str) -> str:
    """What a reader sees of a text, its lines and runs of space as they are."""
    if text.isascii():
        return text
    text = without_unseen(unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", text)  # what stood apart by an unseen character composes now


def visible_lines(text: str) -> str:
    """As `visible`, but the space in front of the text and inside it stays, for answers whose white space counts.

    The end of a line shows none, so space there does not count, and neither do empty lines at the end of the text.
    """
    return "\n".join(line.rstrip() for line in seen(text).rstrip().splitlines())


def without_unseen(text: str) -> str:
    """The text without characters that show nothing (zero-width ones, soft hyphens, …), otherwise as it is."""
    return text if text.isascii() else UNSEEN.sub("", text)


def normal_form(text: str) -> str:
    """What makes two texts one: what a reader sees, case aside. The one notion of equality of labels and inputs."""
    return " ".join(_without_case(text).split())


def units(text: str, *, signs: bool = False) -> list[str]:
    """Words, and characters of scripts without spaces, in order and without case. signs: also +, %, <, …"""
    text = _folded(text)
    if text.isascii():  # the same, three times as fast
        return (_ASCII_UNITS_AND_SIGNS if signs else _ASCII_UNITS).findall(text)
    return (_UNITS_AND_SIGNS if signs else _UNITS).findall(text)


def words(text: str) -> list[str]:
    """What search compares: the units, pairs of neighbouring characters, and pairs inside Korean words."""
    text = _folded(text)
    if text.isascii():
        return _ASCII_UNITS.findall(text)
    found: list[str] = []
    for match in _RUNS.finditer(text):
        run = match.group()
        if match.group(1):
            characters = _CHARACTERS.findall(run)
            found += characters
            found += [a + b for a, b in pairwise(characters)]
        else:
            found.append(run)
            # A Korean word carries its particle ("카드가"): its pairs let it be found without.
            found += [p for part in _HANGUL.findall(run) for i in range(len(part) - 1) if (p := part[i : i + 2]) != run]
    return found


def pieces(text: str) -> list[tuple[int, int]]:
    """(start, end) of the pieces that a text may be cut between: what stands between spaces, or one character."""
    return [match.span() for match in _PIECES.finditer(text)]


def is_character(unit: str) -> bool:
    """Whether a unit is one character of a script without spaces."""
    return _CHARACTERS.fullmatch(unit) is not None


def _without_case(text: str) -> str:
    """The normal form, its lines and runs of space as they are."""
    folded = seen(text).casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFKC", folded)


def _folded(text: str) -> str:
    """What units are cut from: the text without case, and a space for each trade mark."""
    return _without_case(text if text.isascii() else _TRADE_MARKS.sub(" ", text))

"""Words without their endings, so that "cards" finds "card". Snowball's stemmers, by the package PyStemmer.

A word is left as it is unless it is written in letters of its language's script alone: names with digits, codes and
words of other scripts keep their form. Source: Porter, Snowball (2001).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rung.errors import TaskError

_SCRIPTS = {
    "arabic": "\u0620-\u065f\u066e-\u06d3\u06fa-\u06ff",
    "armenian": "\u0530-\u058f",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "hindi": "\u0900-\u0963\u0970-\u097f",
    "nepali": "\u0900-\u0963\u0970-\u097f",
    "persian": "\u0620-\u065f\u066e-\u06d3\u06fa-\u06ff\u200c",
    "russian": "\u0400-\u04ff",
    "serbian": "\u0400-\u04ffa-z\u00c0-\u024f",
    "tamil": "\u0b80-\u0be5",
    "yiddish": "\u0590-\u05ff",
}
_LATIN = "a-z\u00c0-\u024f\u1e00-\u1eff\u0300-\u036f'’"


def stemmer(language: str) -> Callable[[str], str]:
    """(a word as `rung.text.words` gives it) -> its stem. An empty language leaves every word as it is.

    Raises TaskError for a language without a stemmer. For one thread at a time.
    """
    if not language:
        return _as_it_is
    import Stemmer

    if language not in languages():
        raise TaskError(
            f'retrieval.stem: there is no stemmer for "{language}". Write one of {", ".join(languages())}, or '
            'stem: "" for none.'
        )
    snowball = Stemmer.Stemmer(language, 0)
    letters = re.compile(f"[{letters_of(language)}]+").fullmatch
    known: dict[str, str] = {}

    def stem(word: str) -> str:
        found = known.get(word)
        if found is None:
            found = known[word] = (snowball.stemWord(word) or word) if letters(word) else word
        return found

    return stem


def letters_of(language: str) -> str:
    """The letters of its script, as they stand in a class of a regular expression."""
    return _SCRIPTS.get(language, _LATIN)


def languages() -> tuple[str, ...]:
    """Those with a stemmer."""
    import Stemmer

    return tuple(Stemmer.algorithms())


def version() -> str:
    """Of the stemmers: an index that is kept is of one of them."""
    import Stemmer

    return str(Stemmer.version())


def _as_it_is(word: str) -> str:
    return word

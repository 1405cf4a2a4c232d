"""A text without its disguises: what two copies of one text have in common, however they were passed on.

Beyond the normal form (`rung.text`) it takes away HTML, Markdown, tracking parameters, look-alike letters, accents,
emoji, list numbers, greetings, subjects' "Re:", quoted mail and signatures. What may be the content stays: numbers,
dates, signs of mathematics, and whatever would leave fewer than LEAST_LEFT words.
It serves to group rows, never to compare answers. Knows texts; knows nothing of examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from html import unescape

from rung.data.mail import mail_views, without_signature
from rung.text import seen, units

FOLDING = 2
"""Version of what is taken away, for the records of runs."""
LEAST_BARE = 8
"""Words of a text from which it is the same text without any of its signs ("won 5-0", "won 50")."""
LONG = 24
"""Letters of a text in which "ae" may stand for an umlaut, and a letter may stand twice by mistake."""
LEAST_LEFT = 3
"""Words that must be left where a greeting, a number of a list or an accent is taken away."""

POLITE = ("hi", "hello", "hey", "dear", "please", "pls", "thanks", "thank")
"""Words that go with a greeting at the start and at the end of a text; in another order they stand anywhere."""

_TAGS = "a|b|i|u|em|strong|p|div|span|br|hr|ul|ol|li|h[1-6]|font|small|blockquote|pre|code|table|tr|td|th|body|html"
_PAIR = re.compile(rf"<({_TAGS})(?:\s[^<>]*)?>([^<>]*)</\1\s*>", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|hr)\s*/?>|</?p(?:\s[^<>]*)?>", re.IGNORECASE)
_TRACKING = re.compile(
    r"(?<=[?&])(?:utm_\w+|fbclid|gclid|dclid|msclkid|igshid|mc_[ce]id|ref|ref_src|spm|yclid|_hs\w+)=[^&\s#]*&?"
)
_ADDRESS = re.compile(r"<?\bhttps?://(?:www\.)?([^\s<>()\"']+)>?")
_ESCAPED_LINE = re.compile(r"(?<=[\w.,!?)])(?:\\+[nrt])+(?=\w)")
_NOT = re.compile(r"\b(?:(ca|wo|do|does|did|is|are|was|were|has|have|had|could|would|should)n'?t|(can)not)\b")
_NEGATED = {"ca": "can", "wo": "will"}
_EMPTY_QUERY = re.compile(r"[?&](?=[\s#)\]>\"']|$)")
_EMPHASIS = re.compile(
    r"(?<![\w*_~`])(\*{1,3}|_{1,3}|~~|`{1,3})(?=[^\s*_~`])([^\n]{0,300}?)(?<=[^\s*_~`])\1(?![\w*_~`])"
)
_LINE_MARKS = re.compile(r"(?m)^[ \t]*(?:#{1,6}[ \t]+|[-*+\u2022][ \t]+(?=[^\W\d_])|[-=*_~]{3,}[ \t]*$)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010\u2011](?:[ \t]*\n[ \t]*)?(?=[^\W\d_])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MATHS = re.compile(r"[+=<>^\\%$\u00a3\u20ac\u00d7\u00f7\u2212|]|\d\s*[-*/]|[-*/]\s*\d")
_DECORATION = str.maketrans(dict.fromkeys("()[]{}*~`\u2013\u2014\u2015-#", " "))
_NOT_TELLING = frozenset('@&/\\"|_')
_NOT_LETTERS = re.compile(r"[\W_]+")
_SHARP = re.compile(r"(?<=\w)#")  # C# is another language than C
_HASH = "\ue000"
_EMOJI = re.compile(
    "[\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2b00-\u2bff\u3030\U0001f000-\U0001faff\u00a9\u00ae]|"
    r"(?<!\w)[:;=]['-]?[)(DPp/|3](?!\w)"
)
_TWICE = re.compile(r"([^\W\d_])\1+")
_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`\u02bc", "'")
    | dict.fromkeys("\u201e\u201f\u2033\u2039\u203a", '"')
)
_ODD = re.compile(r"[^\w\s.,;:!?'\"]|[_\n:]|\d,\d|;'?[DPp3]\b")
"""What a plain text does not hold: greeting, numbering and farewell aside, a plain text needs no folding."""

_NUMBERING = re.compile(r"\s*(?:[(\[]?#?\d{1,4}[.):\]]+|[(\[]?[a-hA-H][)\]]|[qQ]\d{0,4}[.:)])\s+(?=[\W_]*[^\W\d_])")
_OPENERS = re.compile(
    r"[\W_]*(?:(?:(?:hi|hello|hey|dear|hallo|liebe[rs]?|bonjour|hola|ciao)(?:\s+[^\W\d_]+\.?){0,2}\s*(?:[,!\n]|\s-)"
    r"|(?:hi|hello|hey|hiya|greetings|good (?:morning|afternoon|evening|day)|hallo|guten (?:tag|morgen|abend)|moin"
    r"|bonjour|salut|hola|buen[oa]s (?:dias|tardes)|ciao|buongiorno|ola)(?: (?:there|all|team|everyone|guys|again))?"
    r"|please|pls|plz|kindly|excuse me|bitte|por favor|s'il vous plait|per favore"
    r"|(?:question|query|input|message|q)\s?:"
    r"|to whom it may concern|dear sirs?(?: or |/)madam|thanks|thank you"
    r")(?!\w)|\u4f60\u597d|\u60a8\u597d|\u8bf7\u95ee|\u3053\u3093\u306b\u3061\u306f|\uc548\ub155\ud558\uc138\uc694)"
    r"[\s.,:;!\u2013\u2014\u3001\u3002-]*"
)
_CLOSERS = re.compile(
    r"[\W_]+(?:thanks|thank you|thx|ty|please|pls|plz|thanks in advance|many thanks|cheers|asap|bitte|danke"
    r"|merci(?: d'avance)?|gracias|por favor|grazie|obrigado|thank you (?:so|very) much|thanks (?:so much|a lot))"
    r"[\W_]*$"
)
_CLOSING_WORDS = re.compile(r"th(?:anks|ank you|x)|ty|pl(?:ease|s|z)|cheers|asap|bitte|danke|merci|gracias|favor|gra")

_LOOK_LIKE_LATIN = (
    dict(
        zip(
            "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0475\u043a\u043c\u0442\u0432\u043d",
            "aeopcyxijshdqwvkmtbh",
            strict=True,
        )
    )
    | dict(
        zip(
            "\u03b1\u03bf\u03c1\u03c5\u03bd\u03b9\u03ba\u03c4\u03c7\u03b5\u03b7\u03b3\u03c9",
            "aopuvikxxenyw",
            strict=True,
        )
    )
    | dict(zip("\u0131\u0251\u0261\u0585\u0581\u057d\u0578", "iagogun", strict=True))
)
"""Cyrillic, Greek and other small letters that look Latin, or whose capitals do, after case folding."""
TO_LATIN = str.maketrans(_LOOK_LIKE_LATIN)
"""For the normal form of a text, in which letters are small."""
_TO_CYRILLIC = str.maketrans({b: a for a, b in reversed(_LOOK_LIKE_LATIN.items()) if "\u0400" <= a <= "\u052f"})
_LATIN, _CYRILLIC_OR_GREEK = re.compile("[a-z]"), re.compile("[\u0370-\u052f\u0578-\u0585]")
_ONLY_LATIN = re.compile("[" + "".join(set("abcdefghijklmnopqrstuvwxyz") - set(_LOOK_LIKE_LATIN.values())) + "]")
_ONLY_OTHER = re.compile("(?![" + "".join(_LOOK_LIKE_LATIN) + "])[\u0370-\u052f]")
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN_MARKS = re.compile("(?<=[a-z])[\u0300-\u036f]+")
_DIGITS = re.compile(r"(?![0-9])\d")
_WRONG = re.compile("[\u00c2\u00c3][\u0080-\u00ff\u0152-\u02dc\u2013-\u2122]|\u00e2\u20ac")
_ARABIC_AND_HEBREW_MARKS = re.compile("[\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
_ARABIC_LETTERS = str.maketrans(
    "\u0622\u0623\u0625\u0671\u0629\u0649\u06cc\u06a9", "\u0627\u0627\u0627\u0627\u0647\u064a\u064a\u0643"
)
"""Letters that many write without their marks. Source: Larkey, Ballesteros & Connell, Light stemming (2002)."""
_LATIN_LETTERS = str.maketrans(
    dict(zip("\u0142\u00f8\u0111\u0131\u00f0", "lodid", strict=True)) | {"\u00e6": "ae", "\u0153": "oe"}
)


def folded(text: str) -> list[str]:
    """The words (and telling signs) of a text without its disguises, in order; [] where only punctuation is left."""
    return views(text)[0]


def views(text: str) -> list[list[str]]:
    """What a text says: all of it, then for a mail that quotes another what is new and what is quoted, if that is much.

    Two texts are copies where a view of one is the first view of the other. The first view of a mail with a message
    of its own leaves out what it quotes.
    """
    if text.isascii() and not _ODD.search(text):
        return [units(_trimmed(without_signature(text.lower())))]
    text = seen(_rightly_decoded(text).translate(_QUOTES))
    if "\\" in text:
        text = _ESCAPED_LINE.sub("\n", text)
    if "&" in text and ";" in text:
        text = seen(unescape(text))
    if "<" in text:
        text = _without_tags(text)
    main, *parts = mail_views(text)
    return [_words(main), *(words for part in parts if len(words := _words(part)) > LEAST_LEFT)]


def squeezed(words: Sequence[str]) -> str:
    """The words without the spaces between them: "e mail" and "email" are one. Numbers keep theirs: 1 23, 12 3.

    In a text of some length "ae" is "a", because German umlauts are written so, and "sooo" is "so".
    """
    text = " ".join(words)
    text = re.sub(r"(?<!\d) | (?!\d)", "", text) if any(map(str.isdigit, text)) else text.replace(" ", "")
    once = _TWICE.sub(r"\1", text.replace("ae", "a").replace("oe", "o").replace("ue", "u"))
    return once if len(once) >= LONG else text


def bare(words: Sequence[str]) -> tuple[str, bool] | None:
    """(letters and digits alone, whether signs were left out); None where the signs of so short a text may tell."""
    joined = "".join(words)
    letters = joined.replace("_", "")
    if letters.isalnum():
        return letters, letters != joined
    if len(words) < LEAST_BARE and (any(map(str.isdigit, letters)) or not _signs(words) <= _NOT_TELLING):
        return None
    return _NOT_LETTERS.sub("", letters), True


def _signs(words: Sequence[str]) -> set[str]:
    return {c for word in words for c in word if not c.isalnum() and not unicodedata.combining(c)}


def _words(text: str) -> list[str]:
    """Words of a part of a text that is free of HTML and quoted mail."""
    text = without_signature(text)
    if "://" in text:
        text = _EMPTY_QUERY.sub("", _TRACKING.sub("", text))
        text = _ADDRESS.sub(lambda match: match.group(1).rstrip("/.,;:!?"), text)
    text = _LINE_MARKS.sub("", _EMPHASIS.sub(r"\2", text))
    text = _HYPHEN.sub("", _THOUSANDS.sub("", text))
    text = text.casefold()
    if not text.isascii():
        text = _plain_digits(_without_look_alikes(unicodedata.normalize("NFKC", text)))
        if enough(plain := _without_accents(text)):
            text = plain
    if enough(bare := _EMOJI.sub(" ", text)):
        text = bare
    text = _trimmed(text)
    if not _MATHS.search(text):
        plain = _SHARP.sub(_HASH, text).translate(_DECORATION).replace(_HASH, "#")
        if plain.strip():
            text = plain
    found = units(text, signs=True)
    return [word.strip("_") or word for word in found] if "_" in text else found


def enough(text: str) -> bool:
    """Whether a text says something: LEAST_LEFT words, or as many characters of a script without spaces."""
    return len(text.split()) >= LEAST_LEFT or (not text.isascii() and len(units(text)) >= LEAST_LEFT)


def _trimmed(text: str) -> str:
    """Without numbering and greetings before, and thanks behind; "don't" spelt out. text: without case."""
    for _ in range(4):
        match = _NUMBERING.match(text) or _OPENERS.match(text)
        if match is None or not enough(rest := text[match.end() :]):
            break
        text = rest
    text = _NOT.sub(lambda match: f"{_NEGATED.get(verb := match.group(1) or 'can', verb)} not", text)
    for _ in range(2):
        tail = text[-60:]
        if not _CLOSING_WORDS.search(tail) or (match := _CLOSERS.search(tail)) is None:
            break
        if not enough(rest := text[: len(text) - len(tail) + match.start()]):
            break
        text = rest
    return text


def _without_tags(text: str) -> str:
    """Without breaks and tags in pairs, from the inmost outwards. A tag alone may be what the text is about."""
    text = _BREAK.sub("\n", text)
    for _ in range(8):
        text, times = _PAIR.subn(r" \2 " if "<t" in text or "<li" in text or "<d" in text else r"\2", text)
        if not times:
            break
    return text


def _without_look_alikes(text: str) -> str:
    """Letters of one script in words of another become what they look like; the script of the text decides."""
    if not _CYRILLIC_OR_GREEK.search(text) or not _LATIN.search(text):
        return text
    if len(_ONLY_LATIN.findall(text)) >= len(_ONLY_OTHER.findall(text)):

        def mend(match: re.Match[str]) -> str:
            word = match.group()
            if word.isascii():
                return word
            mended = word.translate(TO_LATIN)
            return mended if mended.isascii() or _LATIN.search(word) else word
    else:

        def mend(match: re.Match[str]) -> str:
            word = match.group()
            return word.translate(_TO_CYRILLIC) if _CYRILLIC_OR_GREEK.search(word) else word

    return _LETTERS.sub(mend, text)


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    bare = _LATIN_MARKS.sub("", _ARABIC_AND_HEBREW_MARKS.sub("", decomposed))
    return unicodedata.normalize("NFC", bare).translate(_LATIN_LETTERS).translate(_ARABIC_LETTERS)


def _plain_digits(text: str) -> str:
    """Digits of every script as 0 to 9."""
    return _DIGITS.sub(lambda match: str(unicodedata.digit(match.group())), text)


def _rightly_decoded(text: str) -> str:
    """The text where it is UTF-8 that was read as Windows-1252 or Latin-1."""
    if _WRONG.search(text):
        for encoding in ("cp1252", "latin-1"):
            with suppress(UnicodeError):
                return text.encode(encoding).decode()
    return text

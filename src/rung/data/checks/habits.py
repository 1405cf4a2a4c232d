"""Classes of answers by which their form is compared: each function takes an answer and names its class, or None."""

from __future__ import annotations

import re
from collections import Counter

CLEAR = 0.9
"""Share of answers from which on a habit is the rule, and others break it."""
LEAST = 20
"""Answers from which on a habit shows."""

_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n?(.*?)\n?```\s*\Z", re.S)
_PREFIX = re.compile(
    r"^\W*(?:(?:the |my |die |la )?(?:(?:final |correct )?answer|output|label|response|result|reply|assistant|antwort|"
    r"r[ée]ponse|respuesta)(?: is| ist| est| es)?|答案|回答)\W{0,3}[:：]",
    re.I,
)
_HTML = re.compile(r"</?(?:br|p|b|i|div|span|a|ul|li|strong|em)\b[^>]*>|&(?:amp|nbsp|lt|gt|quot|#\d+);", re.I)
_MARKDOWN = re.compile(r"(?<![\w*])\*\*(?![\s*])[^*\n]+(?<![\s*])\*\*(?![\w*])|^#{1,4} ", re.M)
_REASON = re.compile(
    r"[.;:!\n]\s*(?:this is because|because|explanation|reason(?:ing)?\s?:|as the (?:text|user|customer)|weil|denn|"
    r"erklärung|begründung|parce que|explication|porque|explicación)\b",
    re.I,
)
_NUMBER = re.compile(r"([^\d\s.,+-]{0,3})\s?[+-]?\d[\d.,]*\s?([^\d\s]{0,12})")
MISREAD = re.compile(
    "Ã[\u0080-\u00bf\u2018-\u203a©¨ª«®¯°±²³´µ¶·¸¹º»¼½¾¿¡¢£¤¥¦§]|â€[\u0080-\u00bf\u2018-\u203a™œž˜¢¦]|Â[\u00a0£°»«©®]|ï»¿|\ufffd"
)
"""What is left where UTF-8 was read as Windows-1252, or where a sign could not be read."""

_SHORT = 60
"""Characters up to which an answer may do without a full stop."""


def percent(part: int, whole: int) -> str:
    """97 %, and never 100 % of what is not all."""
    share = 100 * part / whole
    return f"{min(share, 99.9):.1f} %" if 99 < share < 100 else f"{share:.0f} %"


def fence(output: str) -> str:
    return "yes" if output.lstrip().startswith("```") else "no"


def unfenced(output: str) -> str:
    """What stands in the Markdown fence that an answer consists of; the answer where it is no fence."""
    found = _FENCE.match(output) if "```" in output else None
    return found.group(1) if found and "```" not in found.group(1) else output


def prefix(output: str) -> str:
    return "yes" if (":" in output[:30] or "：" in output[:30]) and _PREFIX.match(output) else "no"


def quotes(output: str) -> str | None:
    text = output.strip()
    if len(text) < 2:
        return None
    return "yes" if (text[0], text[-1]) in _QUOTES and text.count(text[0]) <= 2 else "no"


_QUOTES = {('"', '"'), ("'", "'"), ("“", "”"), ("„", "“"), ("«", "»"), ("‘", "’"), ("`", "`"), ("「", "」")}


def end(output: str) -> str | None:
    text = output.rstrip()
    if not text or len(text) > _SHORT or _ABBREVIATED.search(text):
        return None
    return "yes" if text[-1] in ".。" else "no" if text[-1].isalpha() else None


_ABBREVIATED = re.compile(
    r"(?:\b\w\.){2,}$|\b(?:inc|ltd|co|corp|jr|sr|st|dr|mr|mrs|ms|etc|vs|bros|llc|dept|ave|rd|approx|ca|usw|bzw|"
    r"s\.a|gmbh)\.$|\b[A-Z]\.$|\.\.$",
    re.I,
)


def case(output: str) -> str | None:
    """How an answer is capitalised; None where it begins without a letter that has a case."""
    text = output.strip().lstrip("\"'“«¿¡([*")
    if not text or text[0].lower() == text[0].upper():
        return None
    head = text[:200]
    if re.match(r"[^\W\d_]*[a-z][A-Z]", head):
        return None  # iPhone
    if len(head) > 5 and head.isupper() and sum(c.isalpha() for c in head) > 5:
        return "all"
    return "capital" if text[0].isupper() else "small"


def reason(output: str) -> str:
    return "yes" if len(output) > 20 and _REASON.search(output) else "no"


def lines(output: str) -> str:
    return "more" if "\n" in output.strip() else "one"


def html(output: str) -> str:
    return "yes" if ("<" in output or "&" in output) and _HTML.search(output) else "no"


def markup(output: str) -> str:
    marked = ("*" in output or "#" in output) and _MARKDOWN.search(output)
    return "yes" if marked else html(output)


def unit(output: str) -> str | None:
    """The signs before and behind a number; None where the answer is not one number."""
    found = _NUMBER.fullmatch(output.strip()) if len(output) <= 40 else None
    return None if found is None else f"{found.group(1)}{found.group(2)}".strip().rstrip(".")


def shape(output: str) -> str:
    """Runs of digits as 9, runs of letters as a; empty for a long answer."""
    text = output.strip()
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", text)) if len(text) <= 40 else ""


_SCRIPTS = (
    ("Latin letters", re.compile("[A-Za-z\u00c0-\u024f]")),
    ("Cyrillic", re.compile("[\u0400-\u052f]")),
    ("Greek", re.compile("[\u0370-\u03ff]")),
    ("Chinese characters", re.compile("[\u3400-\u9fff]")),
    ("Japanese kana", re.compile("[\u3040-\u30ff]")),
    ("Hangul", re.compile("[\uac00-\ud7a3]")),
    ("Arabic", re.compile("[\u0600-\u06ff]")),
    ("Hebrew", re.compile("[\u0590-\u05ff]")),
    ("Devanagari", re.compile("[\u0900-\u097f]")),
    ("Thai", re.compile("[\u0e00-\u0e7f]")),
)


def script(text: str) -> str | None:
    """The script of most letters, where it has three or more of them."""
    text = text[:400]
    if text.isascii():
        return "Latin letters" if len(text) > 2 and len(_SCRIPTS[0][1].findall(text)) > 2 else None
    counts = {name: len(form.findall(text)) for name, form in _SCRIPTS}
    if counts["Japanese kana"]:
        counts["Japanese kana"] += counts["Chinese characters"]
    name, number = max(counts.items(), key=lambda item: item[1])
    return name if number > 2 else None


def is_foreign(text: str, own: str, usual: str) -> bool:
    """Whether a text of one script holds nothing of the usual one, and of Latin letters more than a name."""
    if dict(_SCRIPTS)[usual].search(text):
        return False
    return own != "Latin letters" or len(re.findall(r"[^\W\d_]{2,}", text)) > 3


_WORDS = {
    "English": "the of and to is in that it for you with on are this have not be your was can will would "
    "as do no per she he her his him they them we us or if so an at by from all more one but there their what "
    "which when who how has had a i me my our its these those then than",
    "German": "der die das und ist nicht ein eine zu mit den für auf sie wir ich sich von dem werden auch oder wenn",
    "French": "le la les des et est une pour que vous dans ne pas sur avec nous votre du au sont cette qui il",
    "Spanish": "el los las una es por para con del su al lo como más pero sus está son usted muy puede ser",
    "Italian": "il di che è per un una non sono con della nel gli dei alla anche più si come lo questo",
    "Dutch": "het een van en is niet dat op te zijn voor met je aan ook er maar wordt naar bij uw",
    "Portuguese": "os as uma é não para com do da em você no na por mais se como ao dos seu são isso",
}
_OWN = {
    name: frozenset(words.split()) - {w for other, ws in _WORDS.items() if other != name for w in ws.split()}
    for name, words in _WORDS.items()
}
_LANGUAGE_OF = {word: name for name, words in _OWN.items() for word in words}


def language(text: str) -> str | None:
    """The language of a text of eight words or more, by words that only one of seven languages has; None if unsure.

    A tenth of the words at least must be such words: names and quoted words of another language are no language.
    """
    words = text[:600].casefold().split()
    if len(words) < 8:
        return None
    counts = Counter(found for word in words if (found := _LANGUAGE_OF.get(word.strip(".,;:!?\"'()"))))
    ranked = counts.most_common(2)
    if not ranked or ranked[0][1] < max(2, 0.1 * len(words)) or (len(ranked) > 1 and ranked[1][1] * 2 > ranked[0][1]):
        return None
    return ranked[0][0]

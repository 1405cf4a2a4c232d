"""Mails and messages: what the writer says, what is quoted, and what stands under every mail of theirs."""

from __future__ import annotations

import re

_SUBJECT = re.compile(
    r"(?im)^([ \t]*(?:subject|betreff|objet|asunto)?[ \t]*:?[ \t]*)"
    r"(?:(?:re|fwd?|fw|aw|wg|sv|vs|tr|rv|antw|odp|enc|\u56de\u590d|\u7b54\u590d|\u8f6c\u53d1)"
    r"(?:\s?\[\d+\])?[ \t]*:[ \t]*)+"
)
_QUOTED = re.compile(r"(?m)^[ \t]*>+(?:[ \t]*>)*[ \t]?")
_WROTE = re.compile(
    r"(?im)^[ \t>]*(?:(?:on|am|le|el|il|op|em)\b[^\n]{4,120}(?:\n[^\n]{1,80})?"
    r"(?:wrote|schrieb[^\n]{0,60}|a \u00e9crit|escribi\u00f3|ha scritto|schreef|escreveu)[ \t]*:"
    r"|-{2,}[ \t]*(?:original message|forwarded message|forwarded by[^\n]*|urspr\u00fcngliche nachricht"
    r"|message d'origine|begin forwarded message)[ \t]*:?[ \t]*-*|begin forwarded message:)[ \t]*$"
    r"|(?<=\n)[ \t*]*(?:from|von|de|da)[ \t*]*:[^\n]+"
    r"(?=\n(?:[^\n]+\n){1,4}?[ \t*]*(?:subject|betreff|objet|asunto)[ \t*]*:)"
)
_HEADER = re.compile(
    r"(?im)^[ \t>]*(?:from|to|cc|sent|date|von|an|gesendet|datum|de|\u00e0|envoy\u00e9|para|enviado)[ \t]*:[^\n]*\n?"
)
_SUBJECT_LINE = re.compile(r"(?im)^[ \t>]*(?:subject|betreff|objet|asunto)[ \t]*:[ \t]*([^\n]*)")
_DASHES = re.compile(r"\n[ \t]*(?:--|\u2014|_{2,})[ \t]*\n(?:[^\n]*\n?){1,8}$")
_SENT_FROM = re.compile(
    r"(?i)(?:\n|(?<=[.!?]))[ \t]*(?:sent (?:from|via|with) (?:my |the )?[\w '\u2019]{2,40}|get outlook for \w+"
    r"|von meinem [\w ]{2,30} gesendet|envoy\u00e9 de mon [\w ]{2,30}|enviado desde mi [\w ]{2,30})[ \t.]*$"
)
_NAME = r"(?:[ \t\n]+[^\W\d_][\w.'\u2019-]*){0,4}[ \t\n.!-]*$"
_REGARDS = re.compile(
    r"(?i)(?:[\n.,!?;:)]|[ \t][-\u2013\u2014])[ \t\n]*"
    r"(?:(?:(?:best|kind|kindest|warm|many|with best|with kind) )?regards|best wishes|all the best"
    r"|(?:yours )?(?:sincerely|truly|faithfully)(?: yours)?|respectfully"
    r"|mit freundlichen gr\u00fc(?:\u00df|ss)en|(?:viele|beste|liebe) gr\u00fc(?:\u00df|ss)e|mfg|cordialement"
    r"|bien \u00e0 vous|saludos(?: cordiales)?|atentamente|cordiali saluti|met vriendelijke groet)[ \t]*[,.!]?" + _NAME
)
_THANKS = re.compile(
    r"(?i)\n[ \t]*(?:many thanks|thanks|thank you|thx|cheers|best|br)(?: in advance| so much| very much)?[ \t]*[,.!]?"
    r"(?:[ \t\n]+[^\W\d_][\w.'\u2019-]*){0,3}[ \t\n.!-]*$"
)
_SIGNS_OFF = ("\n", "regards", "sincerely", "faithfully", "truly", "wishes", "all the best", "sent from", "sent via",
              "outlook", "gr\u00fc", "mfg", "saludos", "cordial", "atentamente", "groet", "respectfully")  # fmt: skip
"""What stands in every ending that is taken away, in small letters: quick to look for."""
LEAST_REPLY = 8
"""Words of a writer's own above a quotation that make it a message; fewer ("Any news?") belong to what is quoted."""


def mail_views(text: str) -> list[str]:
    """What a mail says, without "Re:" before subjects: as a whole, then what is new and what is quoted, if both are.

    A message of LEAST_REPLY words or more is the whole without what it quotes.
    """
    if ":" in text:
        text = _SUBJECT.sub(r"\1", text)
    wrote = _WROTE.search(text)
    if wrote is None and ">" not in text:
        return [text]
    own, quoted = ("", text) if wrote is None else (text[: wrote.start()], text[wrote.end() :])
    if wrote is None or _QUOTED.match(quoted.lstrip("\n")):  # line by line: the other lines are the writer's
        lines = quoted.split("\n")
        marked = [_QUOTED.match(line) is not None for line in lines]
        own += "\n".join(line for line, mark in zip(lines, marked, strict=True) if not mark)
        quoted = "\n".join(line for line, mark in zip(lines, marked, strict=True) if mark)
    quoted = _QUOTED.sub("", quoted)
    if wrote is not None:
        quoted = _HEADER.sub("", quoted)
    body, quoted = _SUBJECT_LINE.sub("", quoted), _SUBJECT_LINE.sub(r"\1", quoted)
    said = len(without_signature(own).split())
    if not quoted.strip():
        return [own if said else text]
    parts = [quoted, body] if body.strip() and body != quoted else [quoted]
    if not said:
        return parts
    return [own if said >= LEAST_REPLY else f"{own}\n{quoted}", own, *parts]


def without_signature(text: str) -> str:
    """A message without the signature, the closing formula and the name at its end."""
    head, tail = text[:-400], text[-400:]
    small = tail.lower()
    if not any(sign in small for sign in _SIGNS_OFF):
        return text
    for ending in (_SENT_FROM, _DASHES, _REGARDS, _THANKS):
        shorter = ending.sub("", tail.rstrip() if ending is not _DASHES else tail, count=1)
        if len((head + shorter).split()) >= 3:
            tail = shorter
    return head + tail

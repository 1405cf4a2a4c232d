"""What may be meant to mislead a model: instructions hidden in rows or documents, and characters that show nothing.

Data that are about such texts (a set of attacks, chat logs) hold them in many rows: from MANY on, one note about all
takes the place of a warning for each.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence

from rung.data.checks import phrases
from rung.data.checks.material import Material
from rung.data.checks.places import document_texts, texts_of
from rung.data.checks.shares import SeenRow, told
from rung.data.hidden import changes_reading, disguises, hidden_in, mixed_words, named
from rung.data.sensitive import LONGEST
from rung.types import Finding

MANY = 0.1
"""Share of rows from which such text is what the data are about."""

_ENCODED = re.compile(r"(?<![\w/+=])[A-Za-z0-9+/]{60,}={0,2}(?![\w/+=])")

_WHAT = {
    "hidden_instruction": ("text that gives a model orders", "Remove the row, unless the task is about such text."),
    "role_marker": ("a line that poses as a turn of the system", "Remove it, unless the task is about conversations."),
    "chat_tokens": ("control tokens of a chat template", "Remove them; they are read as ordinary text."),
    "encoded_text": ("text in base64 that can be read when decoded", "Look at it, and remove it if it is not meant."),
    "mixed_scripts": (
        "words that mix Latin letters with Greek or Cyrillic ones that look the same",
        "Write them with letters of one script.",
    ),
}
"""Check -> what a row holds, and what to do."""


def poison(material: Material) -> Iterator[Finding]:
    """Findings about rows and documents that may be meant to mislead, and about hidden characters in them."""
    labels = frozenset(material.task.labels or ())
    seen: list[SeenRow] = []
    for example in material.examples:
        for place, text in texts_of(example):
            seen += (SeenRow(check, example, place) for check in _signs_in(text))
            if text not in labels and mixed_words(text):  # of labels, a check of their own tells it
                seen.append(SeenRow("mixed_scripts", example, place))
            if hidden_in(text):
                yield _hidden(text, place, example.row, (example.id,))
    yield from told(seen, len(material.examples), _WHAT, MANY)
    yield from _of_documents(material)


def _of_documents(material: Material) -> Iterator[Finding]:
    """Orders and hidden characters in documents: a passage that is found brings them into the prompt."""
    read = document_texts(material.documents)
    for document, text in read:
        row = f"document {document.id}"
        for check in _signs_in(text, (phrases.ORDERS, phrases.ORDERS_TO_A_READER)):
            what, todo = _WHAT[check]
            if check == "role_marker":
                continue
            yield Finding(check, "warning", row, f"Holds {what}. {todo.replace('the row', 'it')}")
        if hidden_in(text):
            yield _hidden(text, "text", row, ())
    if left := len(material.documents) - len(read):
        message = (
            f"{left:,} of {len(material.documents):,} documents were not searched for personal data and hidden orders: "
            "there is too much text. Check a part of the corpus at a time."
        )
        yield Finding("not_searched", "note", "", message)


def _hidden(text: str, place: str, row: str, ids: tuple[str, ...]) -> Finding:
    number = len(hidden_in(text))
    does = " They change in which order it is read, or spell out a text of their own." if changes_reading(text) else ""
    are = "a character that shows nothing" if number == 1 else f"{number:,} characters that show nothing"
    message = f"The {place} holds {are}: {named(text)}.{does} Remove them: rung check --fix OUT."
    return Finding("invisible_characters", "warning" if disguises(text) else "note", row, message, ids)


def _signs_in(text: str, orders: Sequence[re.Pattern[str]] = (phrases.ORDERS,)) -> Iterator[str]:
    """Checks that a text fails, each once. orders: what gives a model orders where it stands in the open."""
    text = text[:LONGEST]
    small = text.lower()
    if any(phrases.says(order, text, small) for order in orders) or (
        "<!--" in text and any(map(phrases.SPOKEN_TO.search, _comments(text)))
    ):
        yield "hidden_instruction"
    if ("<" in text or "[" in text) and phrases.CONTROL_TOKENS.search(text):
        yield "chat_tokens"
    if ":" in text and phrases.ROLE.search(text):
        yield "role_marker"
    if len(text) >= 60 and any(_is_readable(m.group()) for m in _ENCODED.finditer(text)):
        yield "encoded_text"


def _comments(text: str) -> Iterator[str]:
    """What stands in HTML comments."""
    start = text.find("<!--")
    while start >= 0 and (end := text.find("-->", start)) >= 0:
        yield text[start + 4 : min(end, start + 4_000)]
        start = text.find("<!--", end)


def _is_readable(encoded: str) -> bool:
    """Whether base64 decodes to text: letters, digits and spaces in nine of ten bytes."""
    try:
        decoded = base64.b64decode(encoded[: len(encoded) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return False
    letters = sum(chr(byte).isalnum() or byte in b" .,;:!?'\"\n-" for byte in decoded if byte < 128)
    return len(decoded) > 20 and letters > 0.9 * len(decoded) and b" " in decoded

"""Documents cut into passages, at sentence ends where there are any.

Knows nothing of search. A document that is short enough stays whole and keeps its id, so that ids
marked in the examples keep their meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rung.types import Document

MAX_WORDS = 180
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")


def chunk(documents: Sequence[Document], *, max_words: int = MAX_WORDS) -> tuple[Document, ...]:
    """Passages of at most about `max_words` words. A cut document's passages are named id#1, id#2, …"""
    passages: list[Document] = []
    for document in documents:
        parts = _parts(document.text, max_words)
        if len(parts) == 1:
            passages.append(document)
        else:
            passages.extend(replace(document, id=f"{document.id}#{i}", text=part) for i, part in enumerate(parts, 1))
    return tuple(passages)


def document_id(passage_id: str) -> str:
    """The id of the document a passage was cut from."""
    base, mark, number = passage_id.rpartition("#")
    return base if mark and number.isdigit() else passage_id


def _parts(text: str, max_words: int) -> list[str]:
    if len(text.split()) <= max_words:
        return [text]
    parts: list[str] = []
    current: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        # A "sentence" without an end (a table, code) is cut by words alone.
        for piece in (words[i : i + max_words] for i in range(0, len(words), max_words)):
            if current and len(current) + len(piece) > max_words:
                parts.append(" ".join(current))
                current = []
            current.extend(piece)
    if current:
        parts.append(" ".join(current))
    return parts

"""The texts of an example and of documents, by the place where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rung.types import Document, Example

DOCUMENT_CHARACTERS = 20_000_000
"""So much of a corpus is searched; a finding says where there is more."""


def texts_of(example: Example) -> Iterator[tuple[str, str]]:
    """(place, text) of all that an example says: input, answer, other accepted answers, context, …"""
    yield "input", example.input
    yield "answer", example.output
    if len(example.references) > 1:
        yield from (("accepted answers", text) for text in example.references if text != example.output)
    if example.context:
        yield "context", example.context
    if example.instruction:
        yield "instruction", example.instruction
    for turn in example.turns:
        yield "earlier turns", turn.content


def document_texts(documents: Iterable[Document]) -> list[tuple[Document, str]]:
    """The documents with their titles and texts, DOCUMENT_CHARACTERS in all; the last one may be cut."""
    found: list[tuple[Document, str]] = []
    left = DOCUMENT_CHARACTERS
    for document in documents:
        if left <= 0:
            break
        text = document.text if document.title is None else f"{document.title}\n{document.text}"
        found.append((document, text[:left]))
        left -= len(text)
    return found

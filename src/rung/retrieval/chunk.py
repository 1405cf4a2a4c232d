"""Documents cut into passages: by their headings, pages and paragraphs, at sentence ends where there are any.

Knows nothing of search. A document that is short enough stays whole and keeps its id, so that ids
marked in the examples keep their meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rung.retrieval.cutting import Cutter
from rung.text import pieces, units, whole
from rung.types import Document

MAX_WORDS = 180
"""Words of a passage; of text without spaces (Chinese, Japanese, Thai, …), characters."""

# Chinese and Japanese put no space after a sentence; Burmese and Khmer may; Thai has no sign for its end.
_SENTENCE_END = re.compile(r"(?<=[.!?।])\s+|\n{2,}|(?<=[。！？｡။។])(?![。！？｡」』”’）])\s*")


def chunk(
    documents: Sequence[Document],
    *,
    max_words: int = MAX_WORDS,
    tokens: int = 0,
    overlap: int = 0,
    count_tokens: Callable[[str], int] | None = None,
) -> tuple[Document, ...]:
    """Passages of at most about `max_words` words. A cut document's passages are named id#1, id#2, …

    A passage of a document with headings is titled "Title › Heading › Subheading"; one of a document with pages has the
    page that it begins on.
    tokens: of a passage at most, its title included, as `count_tokens` counts; 0: words count, and the title does not.
    Only one character that is larger than that makes a passage larger. overlap: tokens at most that a passage repeats
    of the one before it, under the same heading.
    """
    if tokens:
        assert count_tokens is not None, "passages of so many tokens need something that counts them"
        count = count_tokens
        cutter = Cutter(tokens, overlap, lambda text: count(whole(text)), titles=True)
    else:
        cutter = Cutter(max_words, 0, lambda text: len(units(text)), titles=False)
    passages: list[Document] = []
    for document in documents:
        if tokens or document.markdown or "\f" in document.text:
            passages.extend(cutter.passages(document))
            continue
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
    """The whole text if it is short enough; else parts with single spaces for spaces and line breaks."""
    if len(units(text)) <= max_words:
        return [text]
    parts: list[str] = []
    start, size = 0, 0  # of the current part
    for place, count in _blocks(text, max_words):
        if size and size + count > max_words:
            parts.append(text[start:place])
            start, size = place, 0
        size += count
    return [" ".join(part.split()) for part in (*parts, text[start:])]


def _blocks(text: str, max_words: int) -> Iterator[tuple[int, int]]:
    """(start, words) of what a part takes in whole: sentences, those over max_words in blocks of max_words."""
    start = 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)):
        sentence, block, size = text[start:end], start, 0
        for a, b in pieces(sentence):
            count = len(units(sentence[a:b]))
            if size and size + count > max_words:
                yield block, size
                block, size = start + a, 0
            size += count
        if size:
            yield block, size
        start = end

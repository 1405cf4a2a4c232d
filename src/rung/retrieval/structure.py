"""A document as sections of blocks, and the places inside a block where it may be cut.

Knows Markdown headings, pages, paragraphs, list items, tables, code, sentences and characters. Knows nothing of sizes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from rung.text import is_character
from rung.types import Document

Kind = Literal["text", "item", "row", "code"]


class Cut(IntEnum):
    """How well a text may be cut at a place; larger is better."""

    CHARACTER = 0
    SPACE = 1
    CLAUSE = 2
    SENTENCE = 3
    ITEM = 4
    PARAGRAPH = 5
    PAGE = 6
    HEADING = 7


@dataclass
class TextBlock:
    """A paragraph, a list item, a table row or a block of code; lines end with their line breaks.

    cut: at its beginning. page: that it begins on; None where the document has no pages. header: the header rows of the
    table that a row belongs to.
    """

    lines: list[str]
    cut: Cut
    page: int | None
    kind: Kind = "text"
    header: str = ""

    @property
    def text(self) -> str:
        return "".join(self.lines)


@dataclass
class Section:
    """A heading with what stands under it. The whole document is one of level 0, without a heading."""

    level: int = 0
    heading: str = ""
    line: TextBlock | None = None
    blocks: list[TextBlock] = field(default_factory=list)
    children: list[Section] = field(default_factory=list)


_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\Z")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|-{3,})[ \t]*\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣▪–]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))\s+\S")
_ROW = re.compile(r"\s*\|")
_RULE = re.compile(r"\s*\|?(?:\s*:?-+:?\s*\|)*(?:\s*:?-+:?\s*)?\Z")
_ESCAPED = re.compile(r"(?:^|(?<=\f))\\(?=#{1,6}\s|```|~~~)", re.MULTILINE)
_MARKUP = re.compile(r"[*`]+")

_LONGEST_HEADING = 300  # characters of the line

_CLOSING = r"""["'”’»)\]*]*"""
_ENDS = re.compile(
    rf"(?P<sentence>(?<=[.!?।…؟۔։።]){_CLOSING}\s+(?![a-z\s])|(?<=[。！？｡။។៕])(?![。！？｡」』”’）])\s*)|\n+"
)
"""Where a sentence ends, or else a line. Chinese and Japanese put no space behind a sentence. A small letter behind a
full stop says that it stood behind a short form."""
_CLAUSE_ENDS = frozenset(",;:，、；：،؛")

# What the next character sticks to: a zero-width joiner, signs that stack consonants, vowels written before theirs.
_LEADING = frozenset("\u200d\u17d2\u1039\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")
_VIRAMAS = frozenset("\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca")
_TRAILING = frozenset("\u0e33\u0eb3\u200c\u200d")


def sections_of(document: Document) -> Section:
    """The document as one section, with the others inside it."""
    reader = _Reader(document.markdown)
    paged = "\f" in document.text
    first = (document.page or 1) if paged else document.page
    text = document.text.replace("\r\n", "\n").replace("\r", "\n")
    for number, page in enumerate(text.split("\f")):
        reader.turn_to(first + number if first is not None else None, page)
        for line in page.split("\n"):
            reader.read(line)
    return reader.root


def split_heading(text: str) -> tuple[str, str]:
    """(the heading that a Markdown text begins with, what follows it); ("", text) where it begins with none."""
    first, _, rest = text.lstrip().partition("\n")
    if len(first) <= _LONGEST_HEADING and (heading := _HEADING.match(first.rstrip("\r"))):
        return _plain_heading(heading[2] or ""), rest.lstrip("\r\n")
    under, _, behind = rest.partition("\n")
    if len(first) <= _LONGEST_HEADING and first.strip() and _UNDERLINE.match(under.rstrip("\r")):
        return _plain_heading(first.strip()), behind.lstrip("\r\n")
    return "", text


def _plain_heading(line: str) -> str:
    """As titles say it."""
    return " ".join(_MARKUP.sub("", line).split())


def without_escapes(document: Document) -> str:
    """The text. Of Markdown, lines that only look like headings or code have no backslash in front."""
    return _ESCAPED.sub("", document.text) if document.markdown else document.text


class _Reader:
    """Reads line by line."""

    def __init__(self, markdown: bool) -> None:
        self.root = Section()
        self._markdown = markdown
        self._open = [self.root]
        self._page: int | None = None
        self._block: TextBlock | None = None
        self._gap = False  # an empty line stands behind the block
        self._turned: Cut | None = None  # the page was turned, and the next block is the first one there
        self._fence = ""
        self._table: tuple[int, str] | None = None  # rows so far, and header rows

    def turn_to(self, page: int | None, text: str) -> None:
        """text: of the page."""
        if self._page is not None and self._block is not None:
            runs_on = not self._fence and _runs_on("".join(self._block.lines[-2:]), text)
            self._turned = Cut.CLAUSE if runs_on else Cut.PAGE
            self._close()
        self._page = page

    def read(self, line: str) -> None:
        if self._fence:
            if self._block is None:
                self._begin(line, "code", Cut.PARAGRAPH)
            else:
                self._add(line)
            if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = ""
                self._close()
            return
        if not line.strip():
            if self._block is not None and not self._gap:
                self._block.lines.append("\n")
            self._gap, self._table = True, None
            return
        if not (self._markdown and self._read_markdown(line)):
            self._table = None
            self._read_text(_ESCAPED.sub("", line) if self._markdown else line)
        self._gap = False

    def _read_markdown(self, line: str) -> bool:
        """Whether the line means something in Markdown; then it has been read."""
        if fence := _FENCE.match(line):
            self._begin(line, "code", Cut.PARAGRAPH)
            self._fence = fence[1]
        elif len(line) <= _LONGEST_HEADING and (heading := _HEADING.match(line)):
            self._head(len(heading[1]), heading[2] or "", line)
        elif _ROW.match(line):
            self._row(line)
        elif self._is_short_line() and (under := _UNDERLINE.match(line)):
            assert self._block is not None
            text = self._block.text
            self._open[-1].blocks.pop()
            self._head(1 if under[1] else 2, text.strip(), f"{text}{line}")
        else:
            return False
        return True

    def _is_short_line(self) -> bool:
        """Whether the block is one line that can be a heading."""
        block = self._block
        if block is None or block.kind != "text" or self._gap:
            return False
        return len(block.lines) == 1 and len(block.lines[0]) <= _LONGEST_HEADING

    def _head(self, level: int, heading: str, line: str) -> None:
        self._close()
        while self._open[-1].level >= level:
            self._open.pop()
        section = Section(level, _plain_heading(heading))
        section.line = TextBlock([f"{line}\n"], Cut.HEADING, self._page)
        self._open[-1].children.append(section)
        self._open.append(section)
        self._turned, self._table = None, None

    def _row(self, line: str) -> None:
        rows, header = self._table or (0, "")
        if rows == 1 and not header and _RULE.match(line) and "-" in line and self._block is not None:
            self._add(line)
            self._table = (1, self._block.text)
            return
        self._begin(line, "row", Cut.PARAGRAPH if not rows else Cut.ITEM, header)
        self._table = (rows + 1, header)

    def _read_text(self, line: str) -> None:
        if _ITEM.match(line):
            self._begin(line, "item", Cut.ITEM)
        elif self._block is None or self._block.kind == "row":
            self._begin(line, "text", Cut.PARAGRAPH)
        elif self._gap:
            inside = self._block.kind == "item" and line[0].isspace()
            self._begin(line, "item" if inside else "text", Cut.ITEM if inside else Cut.PARAGRAPH)
        else:
            self._add(line)

    def _begin(self, line: str, kind: Kind, cut: Cut, header: str = "") -> None:
        self._close()
        self._block = TextBlock([], cut if self._turned is None else self._turned, self._page, kind, header)
        self._turned = None
        self._open[-1].blocks.append(self._block)
        self._add(line)

    def _add(self, line: str) -> None:
        assert self._block is not None
        self._block.lines.append(f"{line}\n")

    def _close(self) -> None:
        self._block, self._gap = None, False


def _runs_on(before: str, after: str) -> bool:
    """Whether a sentence goes on behind the end of a page."""
    last, first = before.rstrip()[-1:], after.lstrip()[:1]
    return bool(last and first) and (
        (first.islower() and (last.isalnum() or last in ",-–(")) or (is_character(last) and is_character(first))
    )


def sentences(text: str) -> Iterator[tuple[Cut, str]]:
    """The text in pieces, each with how well it may be cut before it; of the first one that means nothing."""
    start, cut = 0, Cut.PARAGRAPH
    for match in _ENDS.finditer(text):
        end = match.end()
        if end == start or end == len(text) or (not start and end < 5):  # a number in front of a list item
            continue
        yield cut, text[start:end]
        start, cut = end, Cut.SENTENCE if match["sentence"] is not None else Cut.CLAUSE
    if start < len(text):
        yield cut, text[start:]


def windows(text: str, width: int) -> Iterator[tuple[Cut, str]]:
    """A long sentence in pieces of at most `width` characters; a sequence that may not be cut can be longer.

    Each with how well it may be cut before it; of the first one that means nothing.
    """
    start, cut = 0, Cut.SENTENCE
    while len(text) - start > width:
        end, following = _place(text, start + width // 2, start + width, start)
        if end <= start:  # no place here: the next one behind it
            end, following = start + width, Cut.CHARACTER
            while end < len(text) and not may_be_cut(text, end, start):
                end += 1
        yield cut, text[start:end]
        start, cut = end, following
    if start < len(text):
        yield cut, text[start:]


def halves(text: str) -> tuple[str, str] | None:
    """The text in two, cut near its middle; None where it may be cut nowhere."""
    middle = len(text) // 2
    at, _ = _place(text, middle // 2, middle)
    if at <= 0:
        at = next((i for i in range(max(1, middle), len(text)) if may_be_cut(text, i)), 0)
    return (text[:at], text[at:]) if 0 < at < len(text) else None


def _place(text: str, low: int, high: int, since: int = 0) -> tuple[int, Cut]:
    """The best place to cut between low and high, both included, the last of equals; (-1, …) where there is none."""
    best, how = -1, Cut.CHARACTER
    for at in range(min(high, len(text) - 1), max(1, low) - 1, -1):
        before, after = text[at - 1], text[at]
        if after.isspace():
            continue
        if before in _CLAUSE_ENDS or (before.isspace() and is_character(text[at - 2 : at - 1])):
            if before in _CLAUSE_ENDS and after.isalnum() and not is_character(after):
                continue  # 1,000
            return at, Cut.CLAUSE
        if how < Cut.SPACE and before.isspace():
            best, how = at, Cut.SPACE
        elif best < 0 and may_be_cut(text, at, since):
            best = at
    return best, how


def may_be_cut(text: str, at: int, since: int = 0) -> bool:
    """Whether the characters before and behind that place are not parts of one. since: a place where it may be cut."""
    before, after = text[at - 1], text[at]
    if before.isascii() and after.isascii():
        return True
    if unicodedata.category(after)[0] == "M" or after in _TRAILING or "\U0001f3fb" <= after <= "\U0001f3ff":
        return False
    if before in _LEADING or (before in _VIRAMAS and unicodedata.category(after) == "Lo"):
        return False
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False
    if "\u1160" <= after <= "\u11ff" and "\u1100" <= before <= "\u11ff":  # letters of one Korean syllable
        return False
    return not (_is_regional(before) and _is_regional(after) and _regional_before(text, at, since) % 2)


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regional_before(text: str, at: int, since: int) -> int:
    """Letters of flags that stand in a row before that place."""
    first = at
    while first > since and _is_regional(text[first - 1]):
        first -= 1
    return at - first

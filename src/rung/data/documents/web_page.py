"""A web page as Markdown, with Python's own parser: headings, lists, tables and code, without menus and scripts."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from rung.data.documents.markdown import clean, heading, one_line, pipe_table, plain
from rung.data.documents.parsed import MAX_CHARACTERS, ParsedFile
from rung.data.formats.encoding import Encoding, encoding_of, text_of
from rung.data.formats.source import Source
from rung.errors import DataError

_VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
                    "source", "track", "wbr"))  # fmt: skip
_UNSEEN = frozenset(("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas",
                    "audio", "video", "select", "textarea"))  # fmt: skip
_MENUS = frozenset(("nav", "footer"))
_BLOCKS = frozenset(("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog",
                    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "head", "header",
                    "hgroup", "html", "legend", "li", "main", "nav", "ol", "p", "section", "summary", "table",
                    "tbody", "td", "tfoot", "th", "thead", "tr", "ul"))  # fmt: skip
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_MOST_SPAN = 50
_ITEM = "\0"  # before a block that is an item of a list
_LONG_CELL = 1_000  # characters: a table with such a cell arranges a page
_MARKED_SECTION = re.compile(r"<!\[(?!CDATA\[)[^>]*>")
_DECLARED = re.compile(rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.I)
_CELL_MARKS = re.compile(r"^(#{1,6} |\\(?=[#`~]))")  # no line of a table begins with a cell
_LEAST_SHARE = 0.2  # of a page's text; below it, what was taken for menus is the page


def read_web_page(path: Path) -> ParsedFile:
    """Raises DataError for a file without a sensible encoding, or with over MAX_CHARACTERS."""
    source = Source(path, "text", "gzip" if path.suffix.lower() == ".gz" else None)
    encoding = _encoding(source)
    return markdown_of(text_of(source, encoding, MAX_CHARACTERS), encoding.how)


def markdown_of(page: str, encoding: str = "") -> ParsedFile:
    """A page of HTML. Its menus and footers are left out, unless they hold nearly everything."""
    page = _MARKED_SECTION.sub("", page.replace("\0", ""))
    reader = _Reader(menus=False)
    text = reader.read(page)
    if reader.skipped and len(text) < 2_000:
        whole = _Reader(menus=True)
        if len(text) < _LEAST_SHARE * len(everything := whole.read(page)):
            reader, text = whole, everything
    return ParsedFile(text, reader.named(), encoding=encoding, source=reader.address)


def _encoding(source: Source) -> Encoding:
    """UTF-8 where it is; else what the page declares, where it decodes so; else as of any text."""
    with source.open() as file:
        head = file.read(4096)
    declared = _DECLARED.search(head)
    try:
        found = encoding_of(source)
        if found.name != "cp1252" or declared is None:
            return found
    except DataError:
        if declared is None:
            raise
    name = declared[1].decode("ascii").lower()
    name = "cp1252" if name in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii") else name
    try:
        with source.open() as file:
            codecs.lookup(name)
            file.read(MAX_CHARACTERS).decode(name)
    except (LookupError, UnicodeError) as e:
        raise DataError(f"declares {name[:40]} but is not written so. Save it again as UTF-8.") from e
    return Encoding(name)


@dataclass
class _Table:
    """rows: texts of cells, in each row and column that they reach over. each: the same, each once. cell: blocks of the
    one that is being read. carried: column -> (rows left, text)."""

    outer: list[str]  # blocks before it
    rows: list[list[str]] = field(default_factory=list)
    each: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # its caption, and what stands outside its cells
    cell: list[str] | None = None
    columns: int = 1
    tall: int = 1
    carried: dict[int, tuple[int, str]] = field(default_factory=dict)
    is_layout: bool = False


class _Reader(HTMLParser):
    """Blocks of Markdown, in order. menus: whether nav and footer are read."""

    def __init__(self, *, menus: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._left_out = _UNSEEN if menus else _UNSEEN | _MENUS
        self._menus = menus
        self._open: list[str] = []
        self._count: Counter[str] = Counter()
        self._skip_from: int | None = None  # depth at which an element that is left out began
        self._blocks: list[str] = []
        self._words: list[str] = []
        self._level = 0  # of the heading that is being read
        self._item = ""  # mark of the list item that is being read
        self._lists: list[int | None] = []  # numbers of ordered lists
        self._tables: list[_Table] = []
        self._code = 0
        self._title: list[str] | None = None
        self._titles: list[str] = []
        self._first_heading = ""
        self.address: str | None = None
        self.skipped = False

    def read(self, page: str) -> str:
        try:
            self.feed(page)
            self.close()
        except AssertionError as e:  # of Python's parser, at a declaration that it does not know
            raise DataError("holds markup that cannot be read. Save the page again.") from e
        while self._tables:
            self._end_table()
        self._flush()
        return _joined(self._blocks)

    def named(self) -> str | None:
        """The first heading where the page's title repeats it with the name of the site; else the page's title."""
        title = one_line(clean(self._titles[0])) if self._titles else ""
        found = self._first_heading if not title or self._first_heading in title else title
        return (found or title)[:300] or None

    # ---- what the parser calls ----

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag in ("link", "meta"):
            self._note_address(said)
        if tag in _VOID:
            self._void(tag)
            return
        self._open.append(tag)
        self._count[tag] += 1
        if self._skip_from is not None:
            return
        if self._is_left_out(tag, said):
            self._skip_from = len(self._open)
            self.skipped = self.skipped or tag not in _UNSEEN
        elif tag == "title" and not self._tables:
            self._title = []
        elif tag in _HEADINGS:
            self._flush()
            self._level = _HEADINGS[tag]
        elif tag == "pre":
            self._flush()
            self._code += 1
        elif tag in _BLOCKS:
            self._flush()
            self._begin(tag, said)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._count[tag]:
            return
        while True:
            last = self._open.pop()
            self._count[last] -= 1
            if self._skip_from is None:
                self._end(last)
            elif len(self._open) < self._skip_from:
                self._skip_from = None
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)
        elif self._skip_from is None:
            self._words.append(data if self._code else data.replace("\n", " ").replace("\r", " "))

    # ---- elements ----

    def _is_left_out(self, tag: str, said: dict[str, str]) -> bool:
        hidden = "hidden" in said or said.get("aria-hidden") == "true" or "display:none" in _squeezed(said.get("style"))
        menu = not self._menus and said.get("role") in ("navigation", "banner", "contentinfo", "search")
        return tag in self._left_out or (hidden and tag not in ("html", "body", "main")) or menu

    def _void(self, tag: str) -> None:
        if self._skip_from is None:
            if tag == "br":
                self._words.append("\n")
            elif tag == "hr":
                self._flush()

    def _note_address(self, said: dict[str, str]) -> None:
        is_address = said.get("rel") == "canonical" or said.get("property") == "og:url"
        address = one_line(clean(said.get("href") or said.get("content") or ""))
        if is_address and self.address is None and address.startswith(("http://", "https://")):
            self.address = address[:2_000]

    def _begin(self, tag: str, said: dict[str, str]) -> None:
        if tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._item = self._mark()
        elif tag == "table":
            if self._tables:
                self._tables[-1].is_layout = True
            self._tables.append(_Table(outer=self._blocks))
            self._blocks = self._tables[-1].beside
        elif tag in ("td", "th") and self._tables:
            self._end_cell()
            table = self._tables[-1]
            if not table.rows:
                table.rows.append([])
            table.cell = self._blocks = []
            table.columns, table.tall = _span(said.get("colspan")), _span(said.get("rowspan"))
        elif tag == "tr" and self._tables:
            self._end_cell()
            table = self._tables[-1]
            if table.rows:
                self._carry(table, table.rows[-1])
            table.rows.append([])

    def _mark(self) -> str:
        depth = max(len(self._lists) - 1, 0)
        if not self._lists or (number := self._lists[-1]) is None:
            return "  " * min(depth, 6) + "- "
        self._lists[-1] = number + 1
        return "  " * min(depth, 6) + f"{number}. "

    def _end(self, tag: str) -> None:
        if tag == "title" and self._title is not None:
            self._titles.append("".join(self._title))
            self._title = None
        elif tag in _HEADINGS:
            self._flush()
            self._level = 0
        elif tag == "pre":
            self._flush()
            self._code -= 1
        elif tag in _BLOCKS:
            self._flush()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            elif tag == "li":
                self._item = ""
            elif tag in ("td", "th"):
                self._end_cell()
            elif tag == "table" and self._tables:
                self._end_table()

    def _end_cell(self) -> None:
        table = self._tables[-1] if self._tables else None
        if table is None or table.cell is None:
            return
        self._flush()
        text = _joined(table.cell)
        table.is_layout = table.is_layout or len(text) > _LONG_CELL
        table.each.append(text)
        row = table.rows[-1]
        self._carry(table, row)
        for _ in range(table.columns):
            if table.tall > 1:
                table.carried[len(row)] = (table.tall - 1, text)
            row.append(text)
        table.cell, self._blocks = None, table.beside

    def _carry(self, table: _Table, row: list[str]) -> None:
        """Puts cells that reach down from rows above before the next one."""
        while (at := len(row)) in table.carried and len(row) < 10 * _MOST_SPAN:
            left, text = table.carried[at]
            row.append(text)
            if left > 1:
                table.carried[at] = (left - 1, text)
            else:
                del table.carried[at]

    def _end_table(self) -> None:
        self._end_cell()
        table = self._tables.pop()
        if table.rows:
            self._carry(table, table.rows[-1])
        self._blocks = [*table.outer, *table.beside] if table.beside else table.outer
        if table.is_layout:
            self._blocks += filter(str.strip, table.each)
        else:
            rows = [[_CELL_MARKS.sub("", cell) for cell in row] for row in table.rows]
            if written := pipe_table(rows):
                self._blocks.append(written)

    def _flush(self) -> None:
        """Ends a block: what was read since the last one becomes a heading, a list item, code or a paragraph."""
        text = clean("".join(self._words))
        self._words = []
        if self._code:
            if text.strip():
                self._blocks.append("```\n" + text.strip("\n").replace("```", "'''") + "\n```")
            return
        text = "\n".join(filter(None, map(one_line, text.split("\n")))) if "\n" in text else one_line(text)
        if not text:
            return
        if self._level:
            self._blocks.append(heading(self._level, text))
            self._first_heading = self._first_heading or one_line(text)
            return
        self._blocks.append(_ITEM + plain(self._item + text) if self._item else plain(text))
        self._item = ""


def _joined(blocks: Sequence[str]) -> str:
    """Blocks with a line between them, items of a list without."""
    parts: list[str] = []
    for place, block in enumerate(blocks):
        if place:
            parts.append("\n" if block.startswith(_ITEM) and blocks[place - 1].startswith(_ITEM) else "\n\n")
        parts.append(block.removeprefix(_ITEM))
    return "".join(parts)


def _span(text: str | None) -> int:
    return min(max(int(text), 1), _MOST_SPAN) if text and text.isascii() and text.isdigit() else 1


def _squeezed(style: str | None) -> str:
    return "".join((style or "").lower().split())

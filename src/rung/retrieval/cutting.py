"""Sections of a document packed into passages of a size, each under its headings.

A section that fits stays whole, and small neighbours under one heading are joined. What is too large is filled piece by
piece and cut at the best place in the second half of a passage. Sizes of pieces are shares of a few counts, and every
passage is counted before it is done: a tokenizer is slow, so it sees each text about three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rung.retrieval.structure import (
    Cut,
    Section,
    TextBlock,
    halves,
    sections_of,
    sentences,
    split_heading,
    windows,
    without_escapes,
)
from rung.text import normal_form
from rung.types import Document

BETWEEN = " › "
"""Between the title of a document and the headings of a passage."""

_LONGEST_HEADING = 100  # characters of a heading within a title
_LONG = 32  # characters a token: what is longer than so many is not counted whole
_LEAST_DENSITY = 1 / (4 * _LONG)  # tokens a byte
_SAMPLE = 2_000  # characters
_MOST_HEADER = 4  # a table's header is repeated where it takes one in so many tokens at most


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is not cut unless it has to be. size: about. header: that a passage which begins here repeats."""

    text: str
    size: float
    cut: Cut
    page: int | None
    header: str = ""
    header_size: float = 0.0


@dataclass(frozen=True)
class _Title:
    """Of passages. size: what it takes of a passage. whole: it holds the last heading as it is; full: all of them."""

    text: str | None
    size: int
    whole: bool
    full: bool


@dataclass
class _Node:
    """A section in pieces. heading: its line. own: what stands in front of its first child. told: titles hold the
    heading as it is, so that it need not stand in the first passage of the section."""

    title: _Title
    heading: list[_Piece]
    own: list[_Piece]
    children: list[_Node] = field(default_factory=list)
    size: float = 0.0
    told: bool = True

    def pieces(self, heading: bool = True) -> list[_Piece]:
        """All of them in order. heading: with its own in any case."""
        first = self.heading if heading or not self.told else []
        return [*first, *self.own, *(piece for child in self.children for piece in child.pieces())]


class Cutter:
    """Cuts documents into passages of at most `size`, as `count` counts. overlap: what a passage repeats, at most."""

    def __init__(self, size: int, overlap: int, count: Callable[[str], int], *, titles: bool) -> None:
        """titles: they count, too, as far as the headings go; otherwise the text alone counts."""
        self._size = size
        self._overlap = min(overlap, size // 2)
        self._count = count
        self._titles = titles
        self._density = 0.0  # of the document, per byte
        self._sized: dict[tuple[str, ...], _Title] = {}

    def passages(self, document: Document) -> list[Document]:
        """In order. A document that fits stays whole and keeps its id; else they are named id#1, id#2, …

        A heading that a passage begins with and its title ends with stands in the title alone.
        """
        return [_told_once(p) if p.markdown and p.title else p for p in self._cut(document)]

    def _cut(self, document: Document) -> list[Document]:
        first, last = _pages(document)
        text = without_escapes(document).replace("\f", "\n")
        plain = replace(document, text=text, page=first, last_page=last)
        if not plain.text.strip() or self._fits(plain):
            return [plain]
        self._sized = {}
        root = self._node(sections_of(document), (document.title,) if document.title else ())
        parts = list(self._parts(root))
        if not parts:
            return [plain]
        return [
            replace(
                plain,
                id=f"{document.id}#{number}" if len(parts) > 1 else document.id,
                text=part.text,
                title=part.title,
                page=part.page,
                last_page=part.last_page,
            )
            for number, part in enumerate(parts, 1)
        ]

    def _fits(self, document: Document) -> bool:
        """Whether it fits whole. Notes how dense its text is."""
        text = document.text
        if len(text) > _LONG * self._size:
            middle = len(text) // 2
            some = [text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]]
            self._density = max(_LEAST_DENSITY, sum(map(self._count, some)) / sum(map(_weight, some)))
            return False
        counted = self._measure(document.title, text)
        self._density = max(_LEAST_DENSITY, counted / _weight(text))
        return counted <= self._size

    def _measure(self, title: str | None, text: str) -> int:
        return self._count(f"{title}: {text}" if title and self._titles else text)

    # ---- sections in pieces ----------------------------------------------------------------

    def _node(self, section: Section, path: tuple[str, ...]) -> _Node:
        title = self._title(path)
        room = self._size - title.size
        heading = list(self._sizes([section.line], room)) if section.line is not None else []
        node = _Node(title, heading, list(self._sizes(section.blocks, room)))
        for child in section.children:
            same = path and normal_form(path[-1]) == normal_form(child.heading)  # the title of the document, mostly
            node.children.append(self._node(child, path if same or not child.heading else (*path, child.heading)))
        node.told = title.whole and bool(node.own or all(child.title.full for child in node.children))
        node.size = sum(piece.size for piece in (*heading, *node.own)) + sum(child.size for child in node.children)
        return node

    def _title(self, path: tuple[str, ...]) -> _Title:
        """Title and headings in one, within half of a passage: else the first and the last; the last; none."""
        if path in self._sized:
            return self._sized[path]
        shown = [part if len(part) <= _LONGEST_HEADING else f"{part[:_LONGEST_HEADING].rstrip()}…" for part in path]
        tries = [shown, [shown[0], shown[-1]], shown[-1:]] if len(shown) > 1 else [shown]
        found = _Title(None, 0, not path, not path)
        if not self._titles:
            full = shown[1:] == list(path[1:])
            found = _Title(BETWEEN.join([*path[:1], *shown[1:]]) or None, 0, full, full)
            tries = []
        for parts in tries if path else ():
            text = BETWEEN.join(parts)
            size = self._count(f"{text}: ")
            if size <= self._size // 2:
                found = _Title(text, size, parts[-1] == path[-1], parts == list(path))
                break
        self._sized[path] = found
        return found

    def _sizes(self, blocks: Sequence[TextBlock], room: int) -> Iterator[_Piece]:
        """The blocks in pieces with their sizes: a few pieces are counted at once, and each has its share by bytes."""
        run: list[_Piece] = []
        weight = 0
        for piece in self._pieces(blocks, room):
            run.append(piece)
            weight += len(piece.text)
            if weight >= 2 * self._size:
                yield from self._shared(run)
                run, weight = [], 0
        yield from self._shared(run)

    def _shared(self, run: Sequence[_Piece]) -> Iterator[_Piece]:
        weights = [_weight(piece.text) for piece in run]
        each = self._count("".join(piece.text for piece in run)) / sum(weights) if run else 0.0
        for piece, weight in zip(run, weights, strict=True):
            yield replace(piece, size=each * weight)

    def _pieces(self, blocks: Sequence[TextBlock], room: int) -> Iterator[_Piece]:
        header, header_size = "", 0.0
        for block in blocks:
            if block.header != header:
                header, header_size = block.header, float(self._count(block.header)) if block.header else 0.0
            repeated = header if header_size <= self._size / _MOST_HEADER else ""
            made = _Piece("", 0.0, block.cut, block.page, repeated, header_size if repeated else 0.0)
            if block.kind == "code":
                whole = self._about(block.text) <= 1.5 * room and self._count(block.text) <= room
                parts = [block.text] if whole else block.lines
            else:
                parts = [block.text]
            for number, part in enumerate(parts):
                piece = replace(made, cut=Cut.ITEM) if number else made
                if block.kind == "code" or (block.kind == "row" and self._about(part) <= room):
                    yield from self._fine(piece, part, room)
                else:
                    for place, (cut, sentence) in enumerate(sentences(part)):
                        limit = min(room, self._overlap) if self._overlap else room
                        yield from self._fine(replace(piece, cut=cut) if place else piece, sentence, limit)

    def _fine(self, piece: _Piece, text: str, limit: float) -> Iterator[_Piece]:
        """The text in one piece, or in smaller ones where it is larger than the limit."""
        about = self._about(text)
        if about <= limit:
            yield replace(piece, text=text)
            return
        width = max(1, int(len(text) * max(1.0, limit / 3) / about))
        for number, (cut, part) in enumerate(windows(text, width)):
            yield replace(piece, text=part, cut=cut) if number else replace(piece, text=part)

    def _about(self, text: str) -> float:
        return self._density * _weight(text)

    # ---- passages --------------------------------------------------------------------------

    def _parts(self, node: _Node) -> Iterator[Document]:
        """The passages of a section: whole, or else in groups of neighbours under it."""
        heading = sum(piece.size for piece in node.heading) if node.told else 0.0
        if node.title.size + node.size - heading <= self._size:
            whole = self._joined(node.title, node.pieces(heading=False))
            if whole is not None:
                yield whole
                return
        own = node.own if node.told else [*node.heading, *node.own]
        group = [_Node(node.title, [], own)]
        size = node.title.size + sum(piece.size for piece in own)
        for child in node.children:
            if size + child.size > self._size:
                yield from self._group(node, group)
                group, size = [], node.title.size
            group.append(child)
            size += child.size
        yield from self._group(node, group)

    def _group(self, parent: _Node, group: Sequence[_Node]) -> Iterator[Document]:
        """Neighbours under one heading: in one passage where they fit, else each by itself. The first one may be what
        stands in front of the children."""
        filled = [node for node in group if node.own or node.heading or node.children]
        if len(filled) > 1:
            joined = self._joined(parent.title, [p for node in filled for p in node.pieces()])
            if joined is not None:
                yield joined
                return
        for node in filled:
            if not node.children and not (node.heading and node.own):  # a heading alone, or no heading
                yield from self._packed(parent.title, node.own or node.heading)
            else:
                yield from self._parts(node)

    def _joined(self, title: _Title, pieces: Sequence[_Piece]) -> Document | None:
        """The pieces in one passage; None where they do not fit or are empty."""
        text = _text(pieces)
        fits = text and len(text) <= _LONG * self._size and self._measure(title.text, text) <= self._size
        return _passage(title, text, pieces) if fits else None

    def _packed(self, title: _Title, pieces: Sequence[_Piece]) -> Iterator[Document]:
        """Passages of pieces that stand under one heading, each with the end of the one before."""
        rest = list(reversed(pieces))
        lead: list[_Piece] = []
        while rest:
            lead, taken = self._filled(title, lead, rest)
            filled = [*lead, *taken]
            if text := _text(filled):
                yield _passage(title, text, filled)
            lead = self._lead(filled)

    def _filled(self, title: _Title, lead: list[_Piece], rest: list[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
        """(what is repeated, what is taken) of the next passage. rest: pieces that are left, reversed; they are taken
        from it. Where one piece does not fit, the overlap gives way, then the table's header; then the piece is cut."""
        while True:
            first = lead[0] if lead else rest[-1]
            used = title.size + first.header_size + sum(piece.size for piece in lead)
            taken: list[_Piece] = []
            length = 0
            while rest and (not taken or (used + rest[-1].size <= self._size and length <= _LONG * self._size)):
                used += rest[-1].size
                length += len(rest[-1].text)
                taken.append(rest.pop())
            while True:
                if rest:
                    _cut_well(taken, rest)
                over = self._over(title, [*lead, *taken])
                if over <= 0:
                    return lead, taken
                if len(taken) == 1:
                    break
                while over > 0 and len(taken) > 1:
                    over -= max(taken[-1].size, 0.5)
                    rest.append(taken.pop())
            piece = taken[0]
            if lead:
                lead = []
            elif piece.header:
                piece = replace(piece, header="", header_size=0.0)
            elif (both := halves(piece.text)) is not None:
                rest.append(replace(piece, text=both[1], size=piece.size / 2, cut=Cut.CHARACTER))
                piece = replace(piece, text=both[0], size=piece.size / 2)
            else:
                return [], taken  # one character that is larger than a passage
            rest.append(piece)

    def _over(self, title: _Title, pieces: Sequence[_Piece]) -> float:
        """By how much they are too large for one passage."""
        about = sum(piece.size for piece in pieces)
        if len(pieces) == 1 and len(pieces[0].text) > _LONG * self._size:
            return max(1.0, about)  # it is cut before it is counted
        return self._measure(title.text, _text(pieces)) - self._size

    def _lead(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """The end of a passage that the next one repeats: from a sentence on where one begins there, else less well."""
        if not self._overlap:
            return []
        size, reach = 0.0, len(pieces)
        while reach > 1 and size + pieces[reach - 1].size <= self._overlap:
            reach -= 1
            size += pieces[reach].size
        for least in (Cut.SENTENCE, Cut.CLAUSE, Cut.SPACE, Cut.CHARACTER):
            start = next((i for i in range(reach, len(pieces)) if pieces[i].cut >= least), None)
            if start is not None:
                return list(pieces[start:])
        return []


def _cut_well(taken: list[_Piece], rest: list[_Piece]) -> None:
    """Gives pieces back, so that the passage ends at the best place of its second half; of equals at the last one."""
    half = sum(piece.size for piece in taken) / 2
    best, size = len(taken), 0.0
    cut = rest[-1].cut
    places: list[int] = []
    for place, piece in enumerate(taken):
        if place and size >= half:
            places.append(place)
        size += piece.size
    for place in reversed(places):
        if taken[place].cut > cut:
            best, cut = place, taken[place].cut
    rest.extend(reversed(taken[best:]))
    del taken[best:]


def _text(pieces: Sequence[_Piece]) -> str:
    if not pieces:
        return ""
    return (pieces[0].header + "".join(piece.text for piece in pieces)).strip()


def _passage(title: _Title, text: str, pieces: Sequence[_Piece]) -> Document:
    filled: list[int | None] = [piece.page for piece in pieces if piece.text.strip()]
    first, last = _span(filled or [pieces[0].page])
    return Document("", text, title.text, page=first, last_page=last)


def _span(pages: Sequence[int | None]) -> tuple[int | None, int | None]:
    """(the first page, the last one where that is another)."""
    return pages[0], pages[-1] if pages[-1] != pages[0] else None


def _pages(document: Document) -> tuple[int | None, int | None]:
    """(page that a whole document begins on, page that it ends on where that is another one), by where text stands."""
    pages = document.text.split("\f")
    if len(pages) == 1:
        return document.page, document.last_page
    filled = [number for number, page in enumerate(pages, document.page or 1) if page.strip()] or [document.page or 1]
    return _span(filled)


def _told_once(passage: Document) -> Document:
    """The passage without the heading that it begins with, where its title ends with that one and more text follows."""
    assert passage.title is not None
    heading, rest = split_heading(passage.text)
    ends = (passage.title, passage.title.rpartition(BETWEEN)[2])
    same = heading and normal_form(heading) in map(normal_form, ends)
    return replace(passage, text=rest) if same and rest.strip() else passage


def _weight(text: str) -> int:
    """Bytes, by which tokens are shared out: a Chinese character has three, and is about a token."""
    return max(1, len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))

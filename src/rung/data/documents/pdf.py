"""The text of a PDF, page by page: headings by the outline or by their size, tables by their ruled lines.

PDFium reads text in the order of the file, which keeps columns apart; pdfplumber finds the cells of ruled tables.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rung.data.documents.markdown import clean, heading, one_line, pipe_table, plain
from rung.data.documents.parsed import MAX_CHARACTERS, ParsedFile
from rung.errors import DataError, first_line

MOST_PAGES = 50_000
_TABLE_PAGES = 200
"""Pages of one file on which tables are looked for; it takes a hundred times as long as reading text."""
_RULES = range(4, 3_000)  # drawn lines of a page that may hold a table, and is no drawing
_LARGER = 1.15
_LONGEST_HEADING = 150
_SEVERAL_PAGES = 4
_HYPHEN = re.compile("[\x02\ufffe]")  # PDFium's sign for a hyphen and a line end inside a word
_LEADERS = re.compile(r"(?: ?\.){5,}")  # of a table of contents
_NUMBER = re.compile(r"^((chapter|appendix|section|part)\s+\w+[:.]?\s|([A-Z]\.)?[\d.]+\s|[IVXL]+\.\s)", re.I)
_NO_TITLE = re.compile(r"^(untitled|microsoft (word|powerpoint)\b.*|.*\.(docx?|pdf|tex|indd|rtf|dvi))?$", re.I)
Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


@dataclass(frozen=True)
class _Line:
    text: str
    size: float  # of its letters, in points; 0 where it is not known
    bold: bool
    x: float
    y: float
    end: float  # height of its last letter, below y where it goes on in the next line


def read_pdf(path: Path) -> ParsedFile:
    """Raises DataError for a file that is damaged or protected, ImportError without pypdfium2."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as e:
        if "password" in str(e).lower():
            raise DataError("is protected by a password. Save it without one.") from e
        raise DataError(f"is damaged or no PDF ({first_line(e)[:100].rstrip('.')}). Copy or save it again.") from e
    with document:
        count = len(document)
        if not count or count > MOST_PAGES:
            raise DataError(f"has {count:,} pages; between 1 and {MOST_PAGES:,} can be read. Save it again.")
        return _read(path, document)


def _read(path: Path, document: Any) -> ParsedFile:
    pages: list[list[_Line]] = []
    unreadable: list[int] = []
    ruled: list[int] = []
    characters = 0
    for number in range(len(document)):
        lines, is_unreadable, has_rules = _page(document, number)
        pages.append(lines)
        if is_unreadable:
            unreadable.append(number + 1)
        if has_rules:
            ruled.append(number)
        characters += sum(len(line.text) for line in lines)
        if characters > MAX_CHARACTERS:
            raise DataError(f"holds over {MAX_CHARACTERS // 1_000_000} million characters. Cut it into several files.")
    largest = _largest(pages[0])
    _leave_out_running_titles(pages)
    outline = _outline(document)
    levels = {} if outline else _levels(pages)
    tables = _tables(path, ruled[:_TABLE_PAGES])
    texts = [
        _text(lines, outline.get(number, {}), levels, tables.get(number, ())) for number, lines in enumerate(pages)
    ]
    title = one_line(clean(document.get_metadata_dict().get("Title", "")))
    if _NO_TITLE.match(title):
        title = largest
    return ParsedFile("\f".join(texts), title[:300] or None, pages=len(pages), unreadable_pages=tuple(unreadable))


def _largest(lines: Sequence[_Line]) -> str:
    """What is written in the largest letters of a page, where they are larger than others."""
    sizes = [line.size for line in lines]
    if not sizes or max(sizes) < _LARGER * sorted(sizes)[len(sizes) // 2]:
        return ""
    said = one_line(" ".join(line.text for line in lines if line.size == max(sizes)))
    return said if len(said) <= _LONGEST_HEADING else ""


def _page(document: Any, number: int) -> tuple[list[_Line], bool, bool]:
    """The lines of a page; whether it shows something but holds no text; whether lines are ruled on it."""
    import pypdfium2
    from pypdfium2 import raw

    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        return [], True, False
    try:
        textpage = page.get_textpage()
        try:
            lines = list(_lines(textpage))
        finally:
            textpage.close()
        rules = raw.FPDFPage_CountObjects(page)
        written = "".join(line.text for line in lines)
        strange = sum(c == "\ufffd" or "\ue000" <= c <= "\uf8ff" for c in written)
        if not written or strange > len(written) / 3:
            return [], rules > 0, False
        paths = 0
        if rules in range(_RULES.start, 2 * _RULES.stop) and page.get_rotation() == 0:
            paths = sum(1 for _ in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=2))
        return lines, False, paths in _RULES and tuple(page.get_mediabox()[:2]) == (0, 0)
    finally:
        page.close()


def _lines(textpage: Any) -> Iterator[_Line]:
    from pypdfium2 import raw

    def height(place: int) -> float:
        at = raw.FPDFText_GetCharIndexFromTextIndex(textpage, place)
        return (box.bottom + box.top) / 2 if at >= 0 and raw.FPDFText_GetLooseCharBox(textpage, at, box) else 0.0

    start = 0
    box, name, flags = raw.FS_RECTF(), ctypes.create_string_buffer(64), ctypes.c_int()
    matrix = raw.FS_MATRIX()
    for line in textpage.get_text_range(errors="replace").split("\n"):
        text = _LEADERS.sub(" … ", one_line(clean(_HYPHEN.sub("", line))))
        if text:
            first = start + len(line) - len(line.lstrip())
            end = height(start + len(line.rstrip()) - 1)
            at = raw.FPDFText_GetCharIndexFromTextIndex(textpage, first)
            y, size, bold = height(first), 0.0, False
            if at >= 0:
                size = raw.FPDFText_GetFontSize(textpage, at)
                if raw.FPDFText_GetMatrix(textpage, at, matrix):
                    size *= math.hypot(matrix.c, matrix.d)
                raw.FPDFText_GetFontInfo(textpage, at, name, 64, flags)
                bold = raw.FPDFText_GetFontWeight(textpage, at) >= 600 or b"bold" in name.value.lower()
            yield _Line(text, round(size * 2) / 2, bold, box.left, y, end)
        start += len(line) + 1


def _leave_out_running_titles(pages: list[list[_Line]]) -> None:
    """Takes numbers of pages, and lines that stand at the head or foot of most pages, out of `pages`."""
    filled = [lines for lines in pages if lines]
    if len(filled) < _SEVERAL_PAGES:
        return
    for _ in range(2):
        for place in (0, -1):
            counts = Counter(_without_numbers(lines[place].text) for lines in filled if len(lines) > 1)
            for lines in filled:
                said = _without_numbers(lines[place].text) if len(lines) > 1 else ""
                numbered = said.startswith("#") or said.endswith("#")
                if said and (counts[said] >= (3 if numbered else max(0.6 * len(filled), 3)) or said == "#"):
                    del lines[place]


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+|\b[ivxl]+\b", "#", text.lower())


def _outline(document: Any) -> dict[int, dict[str, int]]:
    """Page from 0 -> heading, folded -> level, as the file's own table of contents says."""
    found: dict[int, dict[str, int]] = {}
    for place, mark in enumerate(document.get_toc(max_depth=6)):
        if place >= 20_000:
            break
        target = mark.get_dest()
        number = None if target is None else target.get_index()
        if number is not None and (title := _folded(mark.get_title())):
            found.setdefault(number, {})[title] = mark.level + 1
    return found


def _folded(text: str) -> str:
    """What an outline and a page have in common of a heading: letters, without its number."""
    return re.sub(r"[\W_]+", "", _NUMBER.sub("", clean(text).strip())).casefold()


def _levels(pages: Sequence[Sequence[_Line]]) -> dict[tuple[float, bool], int]:
    """(size, bold) of headings -> level: larger letters than those of the text, then bold ones of its size."""
    used: Counter[tuple[float, bool]] = Counter()
    for lines in pages:
        for line in lines:
            used[line.size, line.bold] += len(line.text)
    if not used or not (total := used.total()):
        return {}
    body, body_bold = used.most_common(1)[0][0]
    if not body:
        return {}
    sizes = sorted({s for (s, _), n in used.items() if s >= _LARGER * body and n < total / 4}, reverse=True)
    levels = {(size, bold): min(place, 4) for place, size in enumerate(sizes, 1) for bold in (True, False)}
    if not body_bold and used[body, True] < total / 5:
        levels[body, True] = min(len(sizes) + 1, 5)
    return levels


def _level(line: _Line, outline: dict[str, int], levels: dict[tuple[float, bool], int]) -> int:
    """The level of a heading, 0 of other lines."""
    text = line.text
    if len(text) > _LONGEST_HEADING or not re.search(r"[^\W\d_]", text):
        return 0
    if outline:
        return outline.get(_folded(text), 0)
    return 0 if text.endswith((".", ",", ";")) else levels.get((line.size, line.bold), 0)


def _text(
    lines: Sequence[_Line],
    outline: dict[str, int],
    levels: dict[tuple[float, bool], int],
    tables: Sequence[tuple[Box, str]],
) -> str:
    """A page as Markdown: a table stands where the first of its lines stood; a wider gap parts paragraphs."""
    gaps = sorted(abs(a.end - b.y) for a, b in pairwise(lines) if abs(a.end - b.y) > 1)
    usual = gaps[len(gaps) // 2] if gaps else 0.0
    parts: list[str] = []
    written: set[int] = set()
    before: tuple[int, _Line] | None = None  # level, line
    for line in lines:
        inside = next((i for i, (box, _) in enumerate(tables) if _is_in(line, box)), None)
        if inside is not None:
            if inside not in written:
                parts.append(f"\n\n{tables[inside][1]}\n\n")
                written.add(inside)
            before = None
            continue
        level = _level(line, outline, levels)
        follows = (
            before is not None and before[0] == level and abs(before[1].end - line.y) <= 1.5 * max(usual, line.size)
        )
        if level and follows:
            parts.append(f" {line.text}")
        elif level:
            parts.append(f"\n\n{heading(level, line.text)}")
        else:
            parts.append(("\n" if follows else "\n\n") + plain(line.text))
        before = level, line
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _is_in(line: _Line, box: Box) -> bool:
    left, bottom, right, top = box
    return left - 2 <= line.x <= right and bottom <= line.y <= top


def _tables(path: Path, numbers: Sequence[int]) -> dict[int, list[tuple[Box, str]]]:
    """Page from 0 -> the ruled tables on it. None where pdfplumber is not installed or fails."""
    if not numbers:
        return {}
    try:
        import pdfplumber
    except ImportError:
        return {}
    found: dict[int, list[tuple[Box, str]]] = {}
    try:
        with pdfplumber.open(path, pages=[number + 1 for number in numbers]) as document:
            for page in document.pages:
                for table in page.find_tables():
                    rows = [[clean(cell or "") for cell in row] for row in table.extract()]
                    cells = [cell for row in rows for cell in row]
                    text = pipe_table(rows)
                    if text.startswith("| ") and 2 * sum(map(bool, cells)) >= len(cells):
                        left, top, right, bottom = table.bbox
                        box = (float(left), float(page.height - bottom), float(right), float(page.height - top))
                        found.setdefault(page.page_number - 1, []).append((box, text))
                page.close()
    except MemoryError:
        raise
    except Exception:  # whatever a damaged file leads it to; the text was read without it
        return found
    return found

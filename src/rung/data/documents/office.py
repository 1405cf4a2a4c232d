"""Word and PowerPoint files as Markdown. Their archives are checked before a library opens them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from rung.data.documents.markdown import clean, heading, one_line, pipe_table, plain
from rung.data.documents.parsed import ParsedFile
from rung.data.documents.web_page import markdown_of
from rung.errors import DataError, first_line

MAX_UNPACKED = 200_000_000
"""Bytes of the parts of an archive that are read, pictures aside."""
_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"
_BACK = re.compile(r'<a href="#[^"]*">↑</a>')
"""Links back from footnotes, which mammoth adds."""
_TITLE = re.compile(r"<dc:title[^>]*>([^<]*)</dc:title>")


def read_word(path: Path) -> ParsedFile:
    """Paragraphs, headings by their styles, lists, tables, text boxes and footnotes. A Word file has no pages."""
    named = _checked(path)
    import mammoth

    with path.open("rb") as file:
        html = mammoth.convert_to_html(
            file, style_map=_STYLES, convert_image=mammoth.images.img_element(lambda _: {"src": ""})
        ).value
    found = markdown_of(_BACK.sub("", html))
    return ParsedFile(found.text, named or found.title)


def read_slides(path: Path) -> ParsedFile:
    """Each slide is a page: its title as heading, texts from top to bottom, tables, figures of charts, notes."""
    named = _checked(path)
    import pptx

    slides = [_slide(slide) for slide in pptx.Presentation(str(path)).slides]
    unreadable = tuple(n for n, (text, pictures) in enumerate(slides, 1) if pictures and not text)
    first = next((m[1] for text, _ in slides if (m := re.match(r"# (.+)", text))), None)
    text = "\f".join(text for text, _ in slides)
    return ParsedFile(text, named or first, pages=len(slides), unreadable_pages=unreadable)


def check_archive(path: Path, most: int = MAX_UNPACKED) -> list[str]:
    """The names in an Office file. Raises DataError for one that is damaged, protected, or unpacks to too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.flag_bits & 1 for part in parts):
                raise DataError("is protected by a password. Save it without one.")
            read = [part for part in parts if part.filename.lower().endswith((".xml", ".rels"))]
            if (size := sum(part.file_size for part in read)) > most:
                raise DataError(f"unpacks to {size // 1_000_000:,} MB of text. Cut it into several files.")
            for part in read:
                with archive.open(part) as file:
                    if b"<!DOCTYPE" in (head := file.read(4096)) or b"<!ENTITY" in head:
                        raise DataError(
                            "declares entities, which no Office program writes. Save it again, or leave it out."
                        )
            return [part.filename for part in parts]
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, NotImplementedError) as e:
        raise DataError(f"is cut off or damaged ({first_line(e)[:100]}). Copy or save it again.") from e


def _checked(path: Path) -> str:
    """The title that the file's properties give, or ""."""
    if "docProps/core.xml" not in check_archive(path):
        return ""
    with zipfile.ZipFile(path) as archive, archive.open("docProps/core.xml") as file:
        found = _TITLE.search(file.read(100_000).decode("utf-8", "replace"))
    title = one_line(clean(unescape(found[1]))) if found else ""
    return "" if re.fullmatch(r"(PowerPoint.Presentation|Word.Document|Untitled|Slide \d+)?", title) else title[:300]


def _slide(slide: Any) -> tuple[str, bool]:
    """The text of a slide, and whether it shows pictures."""
    title = slide.shapes.title
    parts: list[str] = []
    if title is not None and (said := one_line(clean(title.text_frame.text))):
        parts.append(heading(1, said))
    pictures = False
    for shape in _shapes(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        pictures = pictures or shape.shape_type == 13  # MSO_SHAPE_TYPE.PICTURE
        if getattr(shape, "has_table", False):
            parts.append(pipe_table([[clean(cell.text) for cell in row.cells] for row in shape.table.rows]))
        elif getattr(shape, "has_chart", False):
            parts.append(_chart(shape.chart))
        elif getattr(shape, "has_text_frame", False):
            parts.append(_paragraphs(shape.text_frame))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = clean(slide.notes_slide.notes_text_frame.text).strip()
        parts.append(plain(f"Notes: {notes}") if notes else "")
    return "\n\n".join(filter(None, (part.strip("\n") for part in parts))), pictures


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    """Shapes from top to bottom, those of groups in the group's place."""
    for shape in sorted(shapes, key=lambda s: (s.top or 0, s.left or 0)):
        if hasattr(shape, "shapes") and depth < 20:
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _paragraphs(frame: Any) -> str:
    lines = [(one_line(clean(p.text)), p.level) for p in frame.paragraphs]
    lines = [(text, level) for text, level in lines if text]
    if len(lines) == 1:
        return plain(lines[0][0])
    return "\n".join("  " * min(level, 6) + f"- {text}" for text, level in lines)


def _chart(chart: Any) -> str:
    """The figures of a chart as a table."""
    try:
        plot = chart.plots[0]
        names = [str(c) for c in plot.categories]
        series = [(s.name or "", list(s.values)) for s in plot.series]
    except (AttributeError, IndexError, ValueError, KeyError, TypeError, NotImplementedError):
        return ""
    rows = [["", *(name for name, _ in series)]]
    rows += [[n, *("" if i >= len(v) or v[i] is None else f"{v[i]:g}" for _, v in series)] for i, n in enumerate(names)]
    return pipe_table([[clean(cell) for cell in row] for row in rows])

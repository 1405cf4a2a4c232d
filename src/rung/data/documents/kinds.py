"""What a file of a corpus is, by its first bytes, and by its name where they do not tell."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from rung.data.rows import PACKED_SUFFIXES, ROW_SUFFIXES, unpacked_name

Kind = Literal["text", "web", "pdf", "word", "slides", "workbook", "rows"]

SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".txt", ".text", ".rst", ".md", ".markdown"), "text"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "web"),
    ".pdf": "pdf",
    **dict.fromkeys((".docx", ".docm"), "word"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx"), "slides"),
    **dict.fromkeys((".xlsx", ".xlsm"), "workbook"),
    **dict.fromkeys((s for s in ROW_SUFFIXES if s != ".xlsx"), "rows"),
}  # fmt: skip
MARKDOWN_SUFFIXES = (".md", ".markdown")
NAMES: dict[Kind, str] = {
    "text": "text",
    "web": "a web page",
    "pdf": "PDF",
    "word": "a Word file",
    "slides": "a PowerPoint file",
    "workbook": "an Excel file",
    "rows": "rows",
}
_PACKED: tuple[Kind, ...] = ("text", "web", "rows")
_PARTS: dict[str, Kind] = {"word/document.xml": "word", "ppt/presentation.xml": "slides", "xl/workbook.xml": "workbook"}


def named_kind(path: Path) -> Kind | None:
    """By the name alone."""
    kind = SUFFIXES.get(unpacked_name(path).suffix.lower())
    return None if path.suffix.lower() in PACKED_SUFFIXES and kind not in _PACKED else kind


def kind_of(path: Path) -> Kind | None:
    """What the file holds; None where nothing reads it. Raises OSError where it cannot be opened."""
    with path.open("rb") as file:
        head = file.read(2048)
    if b"%PDF-" in head[:1024]:
        return "pdf"
    named = named_kind(path)
    if head.startswith(b"PK\x03\x04"):
        return _office(path) or (named if named in ("word", "slides", "workbook", "text") else None)
    bare = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if named in ("text", None) and unpacked_name(path).suffix.lower() not in MARKDOWN_SUFFIXES:
        is_page = bare.startswith((b"<!doctype html", b"<html"))
        return "web" if is_page else named
    return named


def _office(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    return next((kind for part, kind in _PARTS.items() if part in names), None)

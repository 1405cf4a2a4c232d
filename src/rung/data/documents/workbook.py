"""Excel workbooks as Markdown: each visible sheet is a page with its name as heading and its rows as a table."""

from __future__ import annotations

import datetime
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from rung.data.documents.markdown import clean, heading, pipe_table, plain
from rung.data.documents.office import check_archive
from rung.data.documents.parsed import MAX_CHARACTERS, ParsedFile
from rung.data.formats.header import titles
from rung.errors import DataError

_UNPACKED = 1_000_000_000
_COLUMNS = 500
_ROWS = 500_000
_SAMPLE = 500


def read_workbook_pages(path: Path) -> ParsedFile:
    """Formulas are read as the values that Excel computed last."""
    check_archive(path, _UNPACKED)
    import openpyxl

    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # about styles and validation that are not read
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            sheets = [s for s in book.worksheets if s.sheet_state == "visible"]
            pages: list[str] = []
            left = MAX_CHARACTERS
            for sheet in sheets:
                pages.append(_page(sheet, left))
                left -= len(pages[-1])
        finally:
            book.close()
    return ParsedFile("\f".join(pages), pages=len(pages))


def _page(sheet: Any, most: int) -> str:
    rows: list[list[str]] = []
    characters = 0
    sheet.reset_dimensions()  # some programs write wrong ones
    for row in sheet.iter_rows(values_only=True):
        cells = [_cell(value) for value in row[:_COLUMNS]]
        if not any(cells):
            continue
        rows.append(cells)
        characters += sum(map(len, cells))
        if characters > most or len(rows) > _ROWS:
            fact = f"holds over {most // 1_000_000} million characters or {_ROWS:,} rows in a sheet"
            raise DataError(f"{fact}. Save what is to be searched as CSV with a column text.")
    if not rows:
        return ""
    sample = [list(row) for row in islice(rows, _SAMPLE)]
    above = titles(sample) if len(sample) > 1 else 0
    said = [plain(" ".join(filter(None, row))) for row in rows[:above]]
    parts = [heading(1, clean(sheet.title)), *said, pipe_table(rows[above:])]
    return "\n\n".join(filter(None, parts))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "minutes")
    return clean(str(value))

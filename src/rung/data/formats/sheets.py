"""Rows of an Excel workbook (.xlsx): the one sheet that holds a table."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rung.data.formats.header import header_problem, is_header, names_from, names_of
from rung.data.formats.source import Source, needs_files
from rung.data.formats.typed_values import plain
from rung.data.rows import Problem, Row, Table
from rung.errors import DataError, first_line

MAX_UNPACKED = 1_000_000_000
_MOST_COLUMNS = 16_384
_SAMPLE_ROWS = 500

Cells = tuple[object, ...]


def read_workbook(source: Source) -> Table:
    """The rows of the one sheet with a table, its formulas as the values that Excel computed last.

    Raises DataError for a damaged file, another kind of zip archive, several sheets with tables, or where openpyxl is
    not installed.
    """
    if source.packing:
        raise DataError(f"{source.name}: is an Excel file packed once more. Unpack it.")
    _refuse_other_archives(source)
    try:
        import openpyxl
    except ImportError as e:
        raise needs_files(source.name, "Excel files") from e
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validation that are not read
        try:
            with source.open() as file:  # of a path, openpyxl would judge the name
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
                try:
                    return _read(source, book)
                finally:
                    book.close()
        except (DataError, MemoryError):
            raise
        except Exception as e:  # openpyxl raises whatever a damaged part leads to
            fact = f"cannot be read as Excel, it is damaged ({first_line(e)[:200]})"
            raise DataError(f"{source.name}: {fact}. Save it again as .xlsx, or as CSV.") from e


def _refuse_other_archives(source: Source) -> None:
    try:
        with zipfile.ZipFile(source.path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as e:
        raise DataError(f"{source.name}: is cut off or damaged ({first_line(e)}). Copy or save it again.") from e
    names = {part.filename for part in parts}
    if not any(name.startswith("xl/") for name in names):
        held = ", ".join(sorted(n for n in names if not n.endswith("/"))[:5]) or "nothing"
        raise DataError(f"{source.name}: is a zip archive, no Excel file. It holds {held[:200]}. Unpack it.")
    if any(part.flag_bits & 1 for part in parts):
        raise DataError(f"{source.name}: is protected by a password. Save it without one.")
    if sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise DataError(f"{source.name}: its content is larger than {MAX_UNPACKED // 1_000_000:,} MB. Save it as CSV.")


def _read(source: Source, book: Any) -> Table:
    found: dict[str, Any] = {}
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible" and len(list(islice(_rows(sheet), 2))) == 2:
            found[sheet.title] = sheet
    if len(found) > 1:
        shown = "; ".join(f'"{title}": {_shown(next(_rows(sheet))[1])}' for title, sheet in list(found.items())[:5])
        raise DataError(
            f"{source.name}: {len(found)} sheets hold rows, which begin with {shown}. Save the right one as a file of "
            "its own (CSV or Excel)."
        )
    table = Table(source.path)
    if not found:
        return table
    ((title, sheet),) = found.items()
    how = [f'the sheet "{title}"'] if len(book.worksheets) > 1 else []
    sample = [cells for _, cells in islice(_rows(sheet), _SAMPLE_ROWS)]
    if title_rows := _titles(sample):
        how.append("a title above the header is left out")
        sample = sample[title_rows:]
    width = max(len(cells) for cells in sample)
    texts = [[_text(c) for c in (*cells, *[None] * (width - len(cells)))] for cells in sample]
    headed = is_header(texts[0], texts[1:])
    names = names_from(texts[0], texts[1:]) if headed else names_of(width)
    if problem := header_problem(names):
        raise DataError(f"{source.name}, row 1: {problem}")
    if not headed:
        how.append(f"no header: the columns are called {', '.join(names[:3])}{' …' * (width > 3)}")
    table.columns = list(names)
    table.how = tuple(how)
    for number, cells in islice(_rows(sheet), title_rows + headed, None):
        _add(table, source, number, names, cells)
    return table


def _titles(sample: Sequence[Cells]) -> int:
    """How many rows at the top hold one cell alone, above a table of several columns."""
    filled = [sum(cell not in (None, "") for cell in cells) for cells in sample]
    first = next((i for i, count in enumerate(filled) if count > 1), 0)
    return first if 2 * sum(count > 1 for count in filled[first:]) > len(filled) - first else 0


def _add(table: Table, source: Source, number: int, names: Sequence[str], cells: Cells) -> None:
    where = f"{source.name}, row {number}"
    if any(cell not in (None, "") for cell in cells[len(names) :]):
        text = f"{len(cells)} cells, but the header has {len(names)}; name every column, or remove the last cells"
        table.problems.append(Problem(where, text))
        return
    padded = (*cells[: len(names)], *[None] * (len(names) - len(cells)))
    try:
        values = {name: plain(value) for name, value in zip(names, padded, strict=True)}
    except ValueError as e:
        table.problems.append(Problem(where, str(e)))
    else:
        table.rows.append(Row(where, f"row-{number}", values))


def _rows(sheet: Any) -> Iterator[tuple[int, Cells]]:
    """(row number in Excel, its cells without the empty ones at the end), of rows that hold something."""
    sheet.reset_dimensions()  # some programs write wrong ones
    for number, row in enumerate(sheet.iter_rows(values_only=True, max_col=None), 1):
        cells = tuple(row[:_MOST_COLUMNS])
        while cells and (cells[-1] is None or cells[-1] == ""):
            cells = cells[:-1]
        if cells:
            yield number, cells


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _shown(cells: Cells) -> str:
    return " ".join(f"[{_text(cell)[:40]}]" for cell in cells[:6])

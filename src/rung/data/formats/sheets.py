"""Rows of an Excel workbook (.xlsx): the one sheet that holds a table."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import islice
from typing import Any

from rung.data.formats.encoding import huge_cell
from rung.data.formats.header import header_problem, is_header, names_from, names_of, no_header, titles
from rung.data.formats.source import Source, needs_files
from rung.data.formats.typed_values import plain
from rung.data.rows import Table
from rung.errors import DataError, first_line

MAX_UNPACKED = 1_000_000_000
_MOST_COLUMNS = 16_384
_SAMPLE_ROWS = 500
_ERRORS = frozenset({"#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!"})
_MERGED = re.compile(rb'<mergeCell ref="([A-Z]+)(\d+):\1(\d+)"')

Cells = tuple[object, ...]
Merges = dict[int, list[tuple[int, int]]]
"""Row -> (column from 0, last row) of each cell that is merged over several rows from there."""


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
        with source.open() as file:  # of a path, openpyxl would judge the name
            with _library(source):
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            try:
                return _read(source, book)
            finally:
                book.close()


@contextmanager
def _library(source: Source) -> Iterator[None]:
    """Around what openpyxl does, which raises whatever a damaged part leads to. Keep rung's own work outside."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:
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
        if sheet.sheet_state == "visible" and len(list(islice(_rows(source, sheet), 2))) == 2:
            found[sheet.title] = sheet
    if len(found) > 1:
        shown = "; ".join(f'"{title}": {_shown(next(_rows(source, s))[1])}' for title, s in list(found.items())[:5])
        raise DataError(
            f"{source.name}: {len(found)} sheets hold rows, which begin with {shown}. Save the right one as a file of "
            "its own (CSV or Excel)."
        )
    table = Table(source.path)
    if not found:
        return table
    ((title, sheet),) = found.items()
    how = [f'the sheet "{title}"'] if len(book.worksheets) > 1 else []
    sample = list(islice(_rows(source, sheet), _SAMPLE_ROWS))
    width = max(len(cells) for _, cells in sample)
    texts = [[*map(_text, cells), *[""] * (width - len(cells))] for _, cells in sample]
    if title_rows := titles(texts):
        how.append("a title above the header is left out")
        texts = texts[title_rows:]
    headed = is_header(texts[0], texts[1:])
    names = names_from(texts[0], texts[1:]) if headed else names_of(width)
    if problem := header_problem(names):
        raise DataError(f"{source.name}, row {sample[title_rows][0]}: {problem}")
    if not headed:
        how.append(no_header(names))
    table.columns = list(names)
    header = title_rows + headed
    if header == len(sample):
        raise DataError(f"{source.name}: has a header but no rows. Put one record on each row below it.")
    merges = _merges(source, sheet, sample[header][0])
    errors: list[int] = []
    for number, cells in _unmerged(islice(_rows(source, sheet), header, None), merges):
        if not _ERRORS.isdisjoint(cells):
            errors.append(number)
            cells = tuple(None if cell in _ERRORS else cell for cell in cells)
        _add(table, f"row {number}", names, cells)
    if merges:
        how.append("a cell that is merged over several rows is read in each of them")
    if errors:
        more = f" and {len(errors) - 1:,} more" if len(errors) > 1 else ""
        how.append(f"errors of formulas, such as #N/A, are read as missing values (row {errors[0]}{more})")
    _refuse_formulas(source, title, table)
    table.how = tuple(how)
    return table


def _merges(source: Source, sheet: Any, first: int) -> Merges:
    """The merged cells from row `first` on."""
    found: Merges = {}
    rest = b""
    # Of a sheet that is only read, openpyxl does not tell its merged cells.
    with _library(source), sheet._get_source() as part:
        while chunk := part.read(1 << 20):
            for letters, row, last in _MERGED.findall(rest[-100:] + chunk):
                if first <= int(row) < int(last):
                    column = reduce(lambda number, letter: 26 * number + letter - 64, letters, 0) - 1
                    found.setdefault(int(row), []).append((column, int(last)))
            rest = chunk
    return found


def _unmerged(rows: Iterable[tuple[int, Cells]], merges: Merges) -> Iterator[tuple[int, Cells]]:
    """The rows, in which a cell that is merged over several stands in each."""
    values: dict[int, tuple[int, object]] = {}  # column -> last row, value
    for number, cells in rows:
        for column, (last, value) in values.items():
            if number <= last:
                cells = (*cells, *[None] * (column + 1 - len(cells)))
                cells = (*cells[:column], value, *cells[column + 1 :])
        for column, last in merges.get(number, ()):
            values[column] = (last, cells[column] if column < len(cells) else None)
        yield number, cells


def _refuse_formulas(source: Source, title: str, table: Table) -> None:
    """Raises DataError for a column of formulas that no program has computed."""
    empty = [i for i, name in enumerate(table.columns) if all(row.values[name] is None for row in table.rows)]
    if not empty:
        return
    import openpyxl

    with source.open() as file:
        with _library(source):
            sheet = openpyxl.load_workbook(file, read_only=True)[title]
        for _, cells in islice(_rows(source, sheet), _SAMPLE_ROWS):
            at = next((i for i in empty if i < len(cells) and str(cells[i]).startswith("=")), None)
            if at is not None:
                raise DataError(
                    f'{source.name}: the column "{table.columns[at][:60]}" holds formulas without values. Open the '
                    "file in Excel or LibreOffice and save it again."
                )


def _add(table: Table, place: str, names: Sequence[str], cells: Cells) -> None:
    if any(cell not in (None, "") for cell in cells[len(names) :]):
        text = f"{len(cells)} cells, but the header has {len(names)}; name every column, or remove the last cells"
        table.refuse(place, text)
        return
    padded = (*cells[: len(names)], *[None] * (len(names) - len(cells)))
    try:
        values = {name: plain(value) for name, value in zip(names, padded, strict=True)}
    except ValueError as e:
        table.refuse(place, str(e))
        return
    if problem := huge_cell(values):
        table.refuse(place, problem)
    else:
        table.add(place, values)


def _rows(source: Source, sheet: Any) -> Iterator[tuple[int, Cells]]:
    """(row number in Excel, its cells without the empty ones at the end), of rows that hold something."""
    from openpyxl.utils.escape import unescape  # of _x000D_, as Excel writes carriage returns

    with _library(source):
        sheet.reset_dimensions()  # some programs write wrong ones
        for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
            cells = tuple(unescape(c) if isinstance(c, str) and "_x" in c else c for c in row[:_MOST_COLUMNS])
            while cells and (cells[-1] is None or cells[-1] == ""):
                cells = cells[:-1]
            if cells:
                yield number, cells


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _shown(cells: Cells) -> str:
    return " ".join(f"[{_text(cell)[:40]}]" for cell in cells[:6])

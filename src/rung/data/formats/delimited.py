"""CSV, TSV and the like: the separator, a header or none, quotes or none are found from the text itself.

One sensible reading is taken, and told where it is not what the file's name promises; two are an error that shows both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from rung.data.formats.encoding import Encoding, line_end, lines_of
from rung.data.formats.header import names_of, no_header
from rung.data.formats.layout import SEPARATORS, Layout, layout_of
from rung.data.formats.records import DelimitedRecord, Quotes, Records
from rung.data.formats.source import Source
from rung.data.rows import Table
from rung.errors import DataError


def read_delimited(source: Source, encoding: Encoding, own: str, *, tell: bool = True) -> Table:
    """The rows. own: the separator that the name promises. tell: whether another one is reported.

    Raises DataError for two sensible readings, for two columns of one name and for a header without rows.
    """
    layout = layout_of(source, encoding, own)
    table, quotes = _read(source, encoding, layout)
    if quotes.swallowing:
        trusted = _trusted(source, encoding, layout, len(quotes.swallowing))
        table, quotes = trusted or (table, quotes)
    how = []
    if tell and layout.separator != own:
        how.append(SEPARATORS.get(layout.separator, f"separated by {layout.separator!r}"))
    if layout.sep_line:
        how.append("the first line names the separator (Excel's sep=)")
    if layout.titled:
        how.append("a title above the header is left out")
    if line_end(source, encoding) == "\r":
        how.append("lines end in a carriage return alone")
    if layout.dialect.spaced:
        how.append("a space after each separator is dropped")
    if layout.dialect.escape:
        how.append('quotes inside quoted text are written \\"')
    if layout.header is None:
        how.append(no_header(table.columns))
    elif layout.doubtful:
        how.append("the first line is read as the names of columns; if it is a row, write a line of names above it")
    if quotes.are_text:
        plain, _ = _read(source, encoding, replace(layout, dialect=replace(layout.dialect, quoting=False)))
        if len(plain.problems) <= len(table.problems):
            plain.how = (*how, f"quotes are part of the text ({_literal(quotes)})", *plain.how)
            return plain
    if quotes.literal:
        how.append(f"a quote that begins a cell but does not close it is part of the text ({_literal(quotes)})")
    for number, count in quotes.long[:3]:
        how.append(
            f"line {number}: a quoted cell spans {count} lines that look like rows; if they are rows, a quote is wrong"
        )
    table.how = (*how, *table.how)
    return table


def _read(source: Source, encoding: Encoding, layout: Layout) -> tuple[Table, Quotes]:
    with lines_of(source, encoding) as lines:
        records = Records(islice(lines, layout.skip, None), source.name, layout.dialect, layout.width)
        table = _table(source, layout, iter(records))
        return table, records.quotes


def _trusted(source: Source, encoding: Encoding, layout: Layout, doubted: int) -> tuple[Table, Quotes] | None:
    """The reading that doubts no quoted cell, where the rest of the file proves it right."""
    try:
        table, quotes = _read(source, encoding, replace(layout, dialect=replace(layout.dialect, trusted=True)))
    except DataError:
        return None
    return (table, quotes) if quotes.prove(doubted) else None


def _table(source: Source, layout: Layout, records: Iterator[DelimitedRecord]) -> Table:
    table = Table(source.path)
    names = tuple(sys.intern(name) for name in layout.header or names_of(layout.width))
    table.columns = list(names)
    first = next(records, None) if layout.header is not None else None
    empty = repeated = cut = 0
    joined: list[int] = []
    for record in records:
        cells, number, problem = record.cells, record.number, record.fault
        if not problem:
            if first is not None and cells == first.cells:
                repeated += 1
                continue
            if not any(cells) or "".join(cells).isspace():
                empty += 1
                continue
            if len(cells) > layout.width:
                cells, was_joined = _fitted(cells, layout)
                joined += [number] * was_joined
                cut += len(cells) == layout.width and not was_joined
            problem = _problem(cells, layout)
        if problem:
            table.refuse(f"line {number}", problem)
        else:
            table.add(f"line {number}", dict(zip(names, cells, strict=True)))
    if layout.header is not None and not table.rows and not table.problems:
        raise DataError(f"{source.name}: has a header but no rows. Put one record on each line below it.")
    table.how = (
        *_count("lines with a separator too many at the end", cut),
        *_count("lines without text, left out", empty),
        *_count("lines that repeat the header, left out", repeated),
    )
    if joined:
        table.how = (*table.how, f"a comma before a space is taken for a part of the text ({_lines(joined)})")
    return table


def _fitted(cells: list[str], layout: Layout) -> tuple[list[str], bool]:
    """The cells of a record that has too many, as far as they fit, and whether some were joined again.

    Empty cells at the end are dropped. Where no cell of a good record begins with a space, a comma before a space is
    prose that somebody did not quote.
    """
    if layout.trailing and not cells[-1]:
        cells = cells[:-1]
    if layout.prose and len(cells) > layout.width:
        whole = cells[:1]
        for cell in cells[1:]:
            if cell.startswith(" "):
                whole[-1] += layout.separator + cell
            else:
                whole.append(cell)
        if len(whole) < len(cells):
            return whole, len(whole) == layout.width
    if not any(cells[layout.width :]):
        cells = cells[: layout.width]
    return cells, False


def _problem(cells: Sequence[str], layout: Layout) -> str:
    if len(cells) != layout.width:
        has = f"the header has {layout.width}" if layout.header is not None else f"the first row has {layout.width}"
        count = f"{len(cells)} field{'s' if len(cells) != 1 else ''}"
        if len(cells) > layout.width:
            return f"{count}, but {has}; quote text that holds the separator"
        return f"{count}, but {has}; write the empty ones too, quote text that holds a line end, or remove the line"
    if any("\0" in cell for cell in cells):
        return "holds a NUL byte; save the file again as plain text"
    return ""


def _count(what: str, count: int) -> tuple[str, ...]:
    return (f"{what}: {count:,}",) if count else ()


def _literal(quotes: Quotes) -> str:
    """The lines with such quotes, and what the first would swallow that seems to quote."""
    told = _lines(quotes.literal)
    if quotes.swallowing:
        line, count = quotes.swallowing[0]
        told += f"; as a quoted cell, that of line {line} would span {count} lines and swallow rows"
    return told


def _lines(numbers: Sequence[int]) -> str:
    some = ", ".join(str(n) for n in numbers[:5]) + (f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else "")
    return f"line {some}" if len(numbers) == 1 else f"lines {some}"

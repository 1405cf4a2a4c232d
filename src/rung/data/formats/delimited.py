"""CSV, TSV and the like: the separator, a header or none, quotes or none are found from the text itself.

One sensible reading is taken, and told where it is not what the file's name promises; two are an error that shows both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rung.data.formats.encoding import Encoding, line_end, lines_of
from rung.data.formats.header import header_problem, is_header, looks_like_a_row, names_from, names_of
from rung.data.formats.records import Line, Quotes, Record, Records
from rung.data.formats.source import Source
from rung.data.rows import Problem, Row, Table
from rung.errors import DataError

SEPARATORS = {
    ",": "separated by commas",
    ";": "separated by semicolons",
    "\t": "separated by tabs",
    "|": "separated by bars (|)",
}
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_SAMPLE_LINES = 500
_SAMPLE_CHARACTERS = 1_000_000
_FEW_ROWS = 5
_LIKELY = 0.5
_SENSIBLE = 0.9
"""The share of records with as many fields as the first from which a separator is a sensible one. A separator that the
name of the file does not promise must reach _LIKELY."""


@dataclass(frozen=True)
class Layout:
    """How a file is laid out. header: None where the first record is a row. skip: lines before the first record.

    trailing: records end in one separator too many. prose: no cell begins with a space, so a comma before one is text.
    escape: a backslash stands before a quote inside quoted text.
    """

    separator: str
    width: int
    header: tuple[str, ...] | None
    skip: int = 0
    trailing: bool = False
    prose: bool = False
    escape: bool = False


def clearly_delimited(source: Source, encoding: Encoding) -> str | None:
    """The separator of a text without a name that tells it, where there are several columns and rows; else None."""
    sample = _sample(source, encoding)
    if sample and (match := _SEP_LINE.fullmatch(sample[0][1].strip("\r\n"))):
        return match[1]
    if any(text.lstrip().startswith(("{", "[")) for _, text in sample[:20]):
        return None
    shares = {s: _share(sample, source.name, s) for s in SEPARATORS}
    good = [s for s, (width, share, records) in shares.items() if width > 1 and records > 2 and share > 0.95]
    return good[0] if len(good) == 1 else None


def read_delimited(source: Source, encoding: Encoding, own: str, *, tell: bool = True) -> Table:
    """The rows. own: the separator that the name promises. tell: whether another one is reported.

    Raises DataError for two sensible readings, for two columns of one name and for a header without rows.
    """
    layout = _layout(_sample(source, encoding), source.name, own)
    table, quotes = _read(source, encoding, layout, quoting=True)
    how = []
    if tell and layout.separator != own:
        how.append(SEPARATORS.get(layout.separator, f"separated by {layout.separator!r}"))
    if layout.skip:
        how.append("the first line names the separator (Excel's sep=)")
    if line_end(source, encoding) == "\r":
        how.append("lines end in a carriage return alone")
    if layout.escape:
        how.append('quotes inside quoted text are written \\"')
    if layout.header is None:
        how.append(f"no header: the columns are called {', '.join(table.columns[:3])}{' …' * (layout.width > 3)}")
    elif looks_like_a_row(layout.header):
        how.append("the first line is read as the names of columns; if it is a row, write a line of names above it")
    if quotes.are_text:
        plain, _ = _read(source, encoding, layout, quoting=False)
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


def _read(source: Source, encoding: Encoding, layout: Layout, *, quoting: bool) -> tuple[Table, Quotes]:
    with lines_of(source, encoding) as lines:
        records = Records(
            islice(lines, layout.skip, None), source.name, layout.separator, layout.width, quoting=quoting,
            escape=layout.escape,
        )  # fmt: skip
        table = _table(source, layout, iter(records))
        return table, records.quotes


def _table(source: Source, layout: Layout, records: Iterator[Record]) -> Table:
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
        where = f"{source.name}, line {number}"
        if problem:
            table.problems.append(Problem(where, problem))
        else:
            table.rows.append(Row(where, f"line-{number}", dict(zip(names, cells, strict=True))))
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
        return f"{len(cells)} fields, but {has}; quote text that holds the separator"
    if any("\0" in cell for cell in cells):
        return "holds a NUL byte; save the file again as plain text"
    return ""


def _sample(source: Source, encoding: Encoding) -> list[Line]:
    lines: list[Line] = []
    size = 0
    with lines_of(source, encoding) as numbered:
        for number, text in numbered:
            if not text.strip() and not lines:
                continue
            lines.append((number, text))
            size += len(text)
            if len(lines) == _SAMPLE_LINES or size > _SAMPLE_CHARACTERS:
                break
    return lines


def _layout(sample: Sequence[Line], name: str, own: str) -> Layout:
    if not sample:
        return Layout(own, 1, None)
    skip, escape = 0, _escapes(sample, name)
    if match := _SEP_LINE.fullmatch(sample[0][1].strip("\r\n")):
        separator, skip, sample = match[1], sample[0][0], sample[1:]
    else:
        separator = _separator(sample, name, own, escape)
    records = _records(sample, name, separator, escape)
    if not records:
        return Layout(separator, 1, None, skip)
    first, rows = records[0].cells, [r.cells for r in records[1:] if not r.fault]
    header = names_from(first, rows) if is_header(first, rows) else None
    if header is not None and (problem := header_problem(header)):
        raise DataError(f"{name}, line {records[0].number}: {problem}")
    width = len(first if header is None else header)
    good = [r for r in rows if len(r) == width or (len(r) == width + 1 and not r[-1])]
    trailing = 2 * sum(len(r) > width for r in good) > len(good)
    prose = separator == "," and len(good) >= _FEW_ROWS and not any(c.startswith(" ") for r in good for c in r[1:])
    return Layout(separator, width, header, skip, trailing, prose, escape)


def _escapes(sample: Sequence[Line], name: str) -> bool:
    """Whether more records are in order where a backslash stands before a quote inside quoted text."""
    if not any('\\"' in text for _, text in sample):
        return False

    def order(separator: str, escape: bool) -> int:
        records = _records(sample, name, separator, escape)
        good = sum(not (r.fault or r.literal) and len(r.cells) == len(records[0].cells) > 1 for r in records)
        return 2 * good - len(records)

    return max(order(s, True) for s in SEPARATORS) > max(order(s, False) for s in SEPARATORS)


def _separator(sample: Sequence[Line], name: str, own: str, escape: bool) -> str:
    """The separator that gives every record as many fields as the first one. Raises DataError for two of them."""
    shares: dict[str, float] = {}
    for separator in SEPARATORS:
        width, share, _ = _share(sample, name, separator, escape)
        if width > 1:
            shares[separator] = share
    if not shares:
        return own
    best = max(shares, key=lambda s: (shares[s], s == own))
    if best != own and shares[best] < _LIKELY:
        return own
    rivals = [s for s in shares if shares[s] >= _SENSIBLE and shares[s] > shares[best] - 0.05]
    if len(rivals) > 1:
        firsts = {s: _shown(_records(sample, name, s, escape)[0].cells) for s in rivals}
        seen = " ".join(f"Split by {SEPARATORS[s].removeprefix('separated by ')}: {firsts[s]}." for s in rivals)
        raise DataError(
            f"{name}, line {sample[0][0]}: can be read in two ways. {seen} Write the right separator into a first "
            f"line of its own, such as sep={rivals[0]}"
        )
    return best


def _shown(cells: Iterable[str]) -> str:
    return " ".join(f"[{cell[:40]}]" for cell in islice(cells, 6))


def _share(sample: Sequence[Line], name: str, separator: str, escape: bool = False) -> tuple[int, float, int]:
    """(fields of the first record, share of the others that have as many, records) with one separator."""
    records = _records(sample, name, separator, escape)
    if not records:
        return 0, 0.0, 0
    width = len(records[0].cells)
    fit = [not r.fault and (len(r.cells) == width or (not any(r.cells[width:]) and len(r.cells) > width))
           for r in records[1:]]  # fmt: skip
    return width, sum(fit) / len(fit) if fit else 1.0, len(records)


def _records(sample: Sequence[Line], name: str, separator: str, escape: bool) -> list[Record]:
    """The records of a sample, the first of which says how wide they are. A quote that the sample cuts ends it."""
    found: list[Record] = []
    try:
        first = next(iter(Records(sample, name, separator, 0, escape=escape)), None)
        if first is None or first.fault:
            return found
        for record in Records(sample, name, separator, len(first.cells), escape=escape):
            found.append(record)
    except DataError:
        pass
    return found


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

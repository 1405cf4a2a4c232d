"""How a text of cells is laid out, found from a bounded sample: separator, header or none, escapes and spaces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from rung.data.formats.encoding import Encoding, lines_of
from rung.data.formats.header import header_problem, is_header, is_known, looks_like_a_row, names_from, titles
from rung.data.formats.records import DelimitedRecord, Dialect, Line, Records
from rung.data.formats.source import Source
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
_MOST_TITLE_LINES = 10
_LINES_BELOW = 100
_FEW_ROWS = 5
_LIKELY = 0.5
_SENSIBLE = 0.9
"""The share of records with as many fields as the first from which a separator is a sensible one. A separator that the
name of the file does not promise must reach _LIKELY."""


@dataclass(frozen=True)
class Layout:
    """How a file is laid out. header: None where the first record is a row. skip: lines before the first record.

    sep_line: the first line names the separator. titled: a title stands above the header. doubtful: the header may be
    a row. trailing: records end in one separator too many. prose: no cell begins with a space, so a comma before one
    is text.
    """

    dialect: Dialect
    width: int
    header: tuple[str, ...] | None
    skip: int = 0
    sep_line: bool = False
    titled: bool = False
    doubtful: bool = False
    trailing: bool = False
    prose: bool = False

    @property
    def separator(self) -> str:
        return self.dialect.separator


def clearly_delimited(source: Source, encoding: Encoding) -> str | None:
    """The separator of a text without a name that tells it, where there are several columns and rows; else None."""
    sample = _sample(source, encoding)
    if sample and (match := _SEP_LINE.fullmatch(sample[0][1].strip("\r\n"))):
        return match[1]
    if any(text.lstrip().startswith(("{", "[")) for _, text in sample[:20]):
        return None
    shares = {s: _share(sample, source.name, Dialect(s)) for s in SEPARATORS}
    good = [s for s, (width, share, records) in shares.items() if width > 1 and records > 2 and share > 0.95]
    return good[0] if len(good) == 1 else None


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


def layout_of(source: Source, encoding: Encoding, own: str) -> Layout:
    """The layout of a file. own: the separator that its name promises.

    Raises DataError for two sensible separators, and for two columns of one name.
    """
    sample, name, skip = _sample(source, encoding), source.name, 0
    if not sample:
        return Layout(Dialect(own), 1, None)
    if match := _SEP_LINE.fullmatch(sample[0][1].strip("\r\n")):
        separators, skip, sample = [match[1]], sample[0][0], sample[1:]
    else:
        separators = list(SEPARATORS)
    sep_line = skip > 0
    above = _title_lines(sample, name, separators)
    if above:
        skip, sample = sample[above - 1][0], sample[above:]
    escape = _escapes(sample, name, separators)
    dialects = [Dialect(s, escape, _spaced(sample, s)) for s in separators]
    dialect = _dialect(sample, name, own, dialects) if len(dialects) > 1 else dialects[0]
    records = _records(sample, name, dialect)
    if not records:
        return Layout(dialect, 1, None, skip, sep_line)
    _refuse_no_tables(records, name)
    if count := titles([r.cells for r in records]):
        above, skip, records = above + count, records[count].number - 1, records[count:]
    first, rows = records[0].cells, [r.cells for r in records[1:] if not r.fault]
    header = names_from(first, rows) if is_header(first, rows) else None
    if header is not None and (problem := header_problem(header)):
        raise DataError(f"{name}, line {records[0].number}: {problem}")
    width = len(first if header is None else header)
    good = [r for r in rows if len(r) == width or (len(r) == width + 1 and not r[-1])]
    trailing = 2 * sum(len(r) > width for r in good) > len(good)
    separated = dialect.separator == "," and not dialect.spaced and (width == 1 or len(good) >= _FEW_ROWS)
    prose = separated and not any(c.startswith(" ") for r in good for c in r[1:])
    doubtful = header is not None and looks_like_a_row(first, rows)
    return Layout(dialect, width, header, skip, sep_line, above > 0, doubtful, trailing, prose)


def _title_lines(sample: Sequence[Line], name: str, separators: Sequence[str]) -> int:
    """How many lines stand above a table and are no records: a title, or what begins with # by custom.

    They hold no separator. Nearly all lines below have as many cells as the first of them, which holds a common name of
    a column, or three cells of which none begins with a space. A first line with # may be the header itself.
    """
    if not sample or any(
        is_known(cell.strip('"')) for s in separators for cell in sample[0][1].rstrip("\r\n").split(s)
    ):
        return 0
    shares = [_share(sample, name, Dialect(s)) for s in separators]
    tabular = any(width > 1 and share > _LIKELY for width, share, _ in shares)
    if tabular and not sample[0][1].startswith("#"):
        return 0
    for count, (_, text) in enumerate(sample[1 : _MOST_TITLE_LINES + 1], 1):
        for separator in separators:
            if any(separator in line and not line.startswith("#") for _, line in sample[:count]):
                continue
            names = text.rstrip("\r\n").split(separator)
            named = any(map(is_known, names)) or (
                len(names) > 2 and not tabular and not any(n.startswith(" ") for n in names)
            )
            if len(names) > 1 and named:
                width, share, records = _share(sample[count : count + _LINES_BELOW], name, Dialect(separator))
                if width == len(names) and records > 2 and share > 0.95:
                    return count
    return 0


def _refuse_no_tables(records: Sequence[DelimitedRecord], name: str) -> None:
    """Raises DataError for a table that was drawn with lines, and for records that are one cell each and hold a record,
    as of a file that was saved as CSV twice.
    """
    for record in records[:3]:
        if any("---" in cell for cell in record.cells) and not "".join(record.cells).strip("-+|: "):
            raise DataError(
                f"{name}, line {record.number}: is a line that was drawn, as psql, MySQL and Markdown show tables. "
                "Export the table as CSV."
            )
    cells = [r.cells[0] for r in records if len(r.cells) == 1]
    if len(cells) < max(_FEW_ROWS, len(records)):
        return
    for separator in SEPARATORS:
        names = cells[0].split(separator)
        alike = sum(cell.count(separator) == len(names) - 1 for cell in cells)
        if len(names) > 1 and not any(n.startswith(" ") or not n for n in names) and alike > _SENSIBLE * len(cells):
            raise DataError(
                f"{name}, line {records[0].number}: quotes stand around each whole line, so all of it is one cell. "
                "Remove them, or export the table as CSV again."
            )


def _spaced(sample: Sequence[Line], separator: str) -> bool:
    """Whether a space follows each separator of the first line, and stands behind one in nearly all lines."""
    first = sample[0][1] if sample else ""
    if separator not in first or re.search(re.escape(separator) + "(?! )", first.rstrip()):
        return False
    return sum(separator + " " in text for _, text in sample) >= _SENSIBLE * len(sample)


def _escapes(sample: Sequence[Line], name: str, separators: Iterable[str]) -> bool:
    """Whether more records are in order where a backslash stands before a quote inside quoted text."""
    if not any('\\"' in text for _, text in sample):
        return False

    def order(dialect: Dialect) -> int:
        records = _records(sample, name, dialect)
        good = sum(not (r.fault or r.literal) and len(r.cells) == len(records[0].cells) > 1 for r in records)
        return 2 * good - len(records)

    plain = [Dialect(s) for s in separators]
    return max(order(replace(d, escape=True)) for d in plain) > max(map(order, plain))


def _dialect(sample: Sequence[Line], name: str, own: str, dialects: Sequence[Dialect]) -> Dialect:
    """The one whose separator gives every record as many fields as the first. Raises DataError for two of them."""
    shares: dict[Dialect, float] = {}
    for dialect in dialects:
        width, share, _ = _share(sample, name, dialect)
        if width > 1:
            shares[dialect] = share
    promised = next(d for d in dialects if d.separator == own)
    if not shares:
        return promised
    best = max(shares, key=lambda d: (shares[d], d.separator == own))
    if best != promised and shares[best] < _LIKELY:
        return promised
    rivals = [d for d in shares if shares[d] >= _SENSIBLE and shares[d] > shares[best] - 0.05]
    if len(rivals) > 1:
        firsts = {d.separator: _shown(_records(sample, name, d)[0].cells) for d in rivals}
        seen = " ".join(f"Split by {SEPARATORS[s].removeprefix('separated by ')}: {firsts[s]}." for s in firsts)
        raise DataError(
            f"{name}, line {sample[0][0]}: can be read in two ways. {seen} Write the right separator into a first "
            f"line of its own, such as sep={rivals[0].separator}"
        )
    return best


def _shown(cells: Iterable[str]) -> str:
    return " ".join(f"[{cell[:40]}]" for cell in islice(cells, 6))


def _share(sample: Sequence[Line], name: str, dialect: Dialect) -> tuple[int, float, int]:
    """(fields of the first record, share of the others that have as many, records)."""
    records = _records(sample, name, dialect)
    if not records:
        return 0, 0.0, 0
    width = len(records[0].cells)
    fit = [not r.fault and len(r.cells) >= width and not any(r.cells[width:]) for r in records[1:]]
    return width, sum(fit) / len(fit) if fit else 1.0, len(records)


def _records(sample: Sequence[Line], name: str, dialect: Dialect) -> list[DelimitedRecord]:
    """The records of a sample, the first of which says how wide they are. A quote that the sample cuts ends it."""
    found: list[DelimitedRecord] = []
    try:
        first = next(iter(Records(sample, name, dialect, 0)), None)
        if first is None or first.fault:
            return found
        for record in Records(sample, name, dialect, len(first.cells)):
            found.append(record)
    except DataError:
        pass
    return found

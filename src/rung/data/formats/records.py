"""Records of delimited text, as its lines are read: what quotes mean is decided record by record.

A cell that begins with a quote may hold separators and line ends (RFC 4180), or the quote is a character of the text:
a TSV written by tools, or a CSV written by hand. A quote that would swallow lines which are rows by themselves is text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rung.data.formats.encoding import MAX_LINE
from rung.errors import DataError

Line = tuple[int, str]


@dataclass(frozen=True)
class Dialect:
    """How cells are written. quoting: False takes every quote as text. trusted: no quoted cell is doubted because its
    lines could be rows. escape: a backslash stands before a quote inside quoted text, as Spark and MySQL write it.
    spaced: a space after each separator belongs to no cell.
    """

    separator: str
    escape: bool = False
    spaced: bool = False
    quoting: bool = True
    trusted: bool = False


_OF_PROSE = ",;"
_LABELS_KEPT = 200
_LINES_LOOKED_AT = 1000


@dataclass
class Quotes:
    """What the quotes of one file were found to mean.

    needed: records whose quotes hold a separator, a line end or a doubled quote. wrapped: records with a quoted cell.
    bare: records without one that hold a quote, which a program that quotes would not write.
    literal: lines of records where a quote that begins a cell is text. long: (line, lines) of cells that span lines,
    most of which could be rows; swallowing: of those that would span lines which are all rows, and so are literal.
    """

    records: int = 0
    needed: int = 0
    wrapped: int = 0
    bare: int = 0
    literal: list[int] = field(default_factory=list)
    long: list[tuple[int, int]] = field(default_factory=list)
    swallowing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def are_text(self) -> bool:
        """Whether the file knows no quoting: some quotes can only be text, none is needed, and few cells bear any."""
        return bool(self.literal) and not self.needed and 2 * self.wrapped < self.records

    def prove(self, doubted: int) -> bool:
        """Whether a trusted reading shows a file of a program that quotes, so that `doubted` cells are right as well.

        Then no quote stands in the wrong place, and other cells need their quotes, or most records have some.
        """
        others = self.needed > doubted or 2 * (self.wrapped - doubted) > self.records
        return not self.literal and not self.bare and others


@dataclass(frozen=True)
class DelimitedRecord:
    """The cells of one record, or why it has none. number: the line it begins on. literal: a quote in it is text."""

    number: int
    cells: list[str]
    fault: str = ""
    literal: bool = False


class Records:
    """Reads records one by one.

    width: of a good record. Raises DataError for a quote that is never closed where the lines after it are no rows.
    """

    def __init__(self, lines: Iterable[Line], name: str, dialect: Dialect, width: int) -> None:
        self.name, self.dialect, self.separator, self.width = name, dialect, dialect.separator, width
        self.quotes = Quotes()
        self._lines = iter(lines)
        self._back: list[Line] = []
        self._last: set[str] = set()

    def __iter__(self) -> Iterator[DelimitedRecord]:
        separator, quotes = self.separator, self.quotes
        while (line := self._next()) is not None:
            number, text = line
            bare = text.rstrip("\r\n")
            if '"' not in bare or not self.dialect.quoting:
                if not bare or (bare.isspace() and separator not in bare):
                    continue
                quotes.records += 1
                cells = self._split(bare)
                if len(self._last) < _LABELS_KEPT:
                    self._last.add(cells[-1])
                yield DelimitedRecord(number, cells)
            else:
                quotes.records += 1
                yield self._quoted(line, bare)

    def _split(self, bare: str) -> list[str]:
        cells = bare.split(self.separator)
        return [cells[0], *(cell.removeprefix(" ") for cell in cells[1:])] if self.dialect.spaced else cells

    def _next(self) -> Line | None:
        return self._back.pop() if self._back else next(self._lines, None)

    def _quoted(self, line: Line, bare: str) -> DelimitedRecord:
        """The record that begins with a line which holds a quote. Lines that it does not need are put back."""
        number = line[0]
        used = [line]
        cells, fault = self._strict(used)
        if cells is not None and not (len(used) > 1 and not self.dialect.trusted and self._swallows(used)):
            self._count(used, cells)
            return DelimitedRecord(number, cells)
        plain = self._split(bare)
        if len(plain) == self.width and (cells is not None or self._rows_follow(used, ended="end of data" in fault)):
            self._back.extend(reversed(used[1:]))
            self.quotes.literal.append(number)
            if cells is not None:
                self.quotes.swallowing.append((number, len(used)))
            return DelimitedRecord(number, [_unwrapped(cell) for cell in plain], literal=True)
        if "end of data" in fault or "field larger" in fault:
            if "field larger" in fault:
                why = f"a field is longer than {MAX_LINE // 1_000_000} MB; look for a quote that is never closed"
            else:
                why = "a quote is opened here and never closed"
            raise DataError(f"{self.name}, line {number}: {why}.")
        if len(used) == 1 and len(plain) != self.width:
            return DelimitedRecord(
                number, plain, f'not valid CSV ({fault}); write a quote inside quoted text twice ("")'
            )
        last = f" to line {used[-1][0]}" if len(used) > 1 else ""
        return DelimitedRecord(
            number, [], f'not valid CSV{last} ({fault}); write a quote inside quoted text twice ("")'
        )

    def _strict(self, used: list[Line]) -> tuple[list[str] | None, str]:
        """The cells by RFC 4180, or the csv module's objection. Lines that it needs are appended to `used`."""

        def feed() -> Iterator[str]:
            yield _one_end(used[0][1])
            while (line := self._next()) is not None:
                used.append(line)
                yield _one_end(line[1])

        # The limit on a field is global to the process, so it is put back.
        limit = csv.field_size_limit(MAX_LINE)
        try:
            reader = csv.reader(
                feed(),
                delimiter=self.separator,
                strict=True,
                escapechar="\\" if self.dialect.escape else None,
                skipinitialspace=self.dialect.spaced,
            )
            return next(reader), ""
        except csv.Error as e:
            return None, str(e)
        finally:
            csv.field_size_limit(limit)

    def _count(self, used: list[Line], cells: list[str]) -> None:
        text = used[0][1]
        if text.startswith('"') or self.separator + '"' in text:
            self.quotes.wrapped += 1
        else:
            self.quotes.bare += 1
        if len(used) > 1 or '""' in text or any(self.separator in cell for cell in cells):
            self.quotes.needed += 1
        if len(used) > 3:
            rows = sum(self._is_row(text) for _, text in used)
            if 2 * rows > len(used):
                self.quotes.long.append((used[0][0], len(used)))

    def _swallows(self, used: list[Line]) -> bool:
        """Whether every line of a record that spans lines would be a row by itself.

        In prose a comma or semicolon is followed by a space, and lines may be blank. Of two lines alone with commas,
        the first must also end in a cell that other records end in: a comma in each of two lines proves nothing.
        """
        if any('""' in text or not self._is_row(text, split=True) for _, text in used):
            return False
        if len(used) > 2 or self.separator != ",":
            return True
        return used[0][1].rstrip("\r\n").rsplit(",", 1)[-1] in self._last

    def _rows_follow(self, used: list[Line], ended: bool) -> bool:
        """Whether the lines that a broken quoted cell ran over are rows. ended: the last of them is whole."""
        inner = used[1:] if ended else used[1:-1]
        return all(self._is_row(text) for _, text in inner[:_LINES_LOOKED_AT] if text.strip())

    def _is_row(self, text: str, split: bool = False) -> bool:
        bare = text.rstrip("\r\n")
        cells = self._split(bare)
        if '"' in bare and not split:
            cells = next(csv.reader([bare], delimiter=self.separator), [])
        if len(cells) != self.width or self.width < 2:
            return False
        if self.width == 2 and not all(cell.strip() for cell in cells):
            return False
        return self.separator not in _OF_PROSE or not any(cell.startswith(" ") for cell in cells[1:])


def _one_end(text: str) -> str:
    """A line without the carriage returns that a program wrote twice, which the csv module refuses."""
    return text.rstrip("\r\n") + "\r\n" if text.endswith("\r\r\n") else text


def _unwrapped(cell: str) -> str:
    """A cell without the quotes around it, where it has both."""
    if len(cell) > 1 and cell.startswith('"') and cell.endswith('"'):
        return cell[1:-1].replace('""', '"')
    return cell

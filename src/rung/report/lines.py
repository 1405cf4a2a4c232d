"""Lines of a terminal: wrapping, columns, cutting, and plain signs where the terminal has no more.

Knows widths in columns of the terminal, nothing of runs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.report.words import NO_BREAK, tied

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

Line = tuple[str, str]
"""(text, style)"""


@dataclass(frozen=True)
class Screen:
    """Something to print. lines: width -> lines of at most that many columns."""

    lines: Callable[[int], list[Line]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.text import Text

        for text, style in self.lines(options.max_width):
            yield Text(printable(text, console.encoding), style=style, no_wrap=True, overflow="crop")


def wrapped(text: str, width: int, most: int | None = None, bullet: str = "") -> list[Line]:
    """The text in lines. most: at most so many; what does not fit ends in an ellipsis. None: the whole text."""
    from rich.cells import cell_len

    text = tied(" ".join(clean(text).split()))
    room = max(8, width)
    if cell_len(text) > len(text):  # wide signs take two columns: as if every one did
        room = max(8, room // 2)
    limit: dict[str, Any] = {} if most is None else {"max_lines": most, "placeholder": "…"}
    lines = textwrap.wrap(
        text,
        room,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
        **limit,
    )
    return [(line.replace(NO_BREAK, " "), "") for line in lines]


def styled(lines: Sequence[Line], style: str) -> list[Line]:
    return [(text, style) for text, _ in lines]


def width_of(rows: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len

    return sum(max(cell_len(r[i]) for r in rows) for i in range(len(rows[0]))) + 2 * (len(rows[0]) - 1)


def columns(rows: Sequence[Sequence[str]], aligned: str, width: int) -> list[str]:
    """Rows with columns two blanks apart. aligned: l or r for each column."""
    from rich.cells import cell_len

    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(cell_len(r[i]) for r in cleaned) for i in range(len(aligned))]

    def padded(cell: str, i: int) -> str:
        space = " " * (widths[i] - cell_len(cell))
        return cell + space if aligned[i] == "l" else space + cell

    return [cut("  ".join(padded(cell, i) for i, cell in enumerate(row)).rstrip(), width) for row in cleaned]


def cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    text = clean(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def clean(text: str) -> str:
    """Without control signs: a name from the user's files must not command the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


_ASCII = str.maketrans({"…": "~", "–": "-", "→": ">", "“": '"', "”": '"', "’": "'", "×": "x"})


def printable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "replace").decode()
    return text

"""Headings and tables as Markdown writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

BLOCK_CHARACTERS = 1_200
"""So many characters of rows stand under one header; then it is repeated, so that a cut passage knows its columns."""
_MARKS = re.compile(r"^(?=#{1,6}\s|```|~~~)", re.MULTILINE)
_UNWANTED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def clean(text: str) -> str:
    """Without control characters and halves of surrogate pairs; line ends are \\n, and \\f is kept."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\xa0", " ")
    return _UNWANTED.sub("", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    return " ".join(text.split())


def heading(level: int, text: str) -> str:
    return f"{'#' * min(max(level, 1), 6)} {one_line(text)}"


def plain(text: str) -> str:
    """A text in which no line looks like a heading or code: such lines get a backslash, which passages drop."""
    return _MARKS.sub(r"\\", text)


def pipe_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row as header; rows and columns without text are left out, cells are put on one line.

    A table of one column or row is no table: its cells become lines.
    """
    cells = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    cells = [row for row in cells if any(row)]
    width = max(map(len, cells), default=0)
    used = [i for i in range(width) if any(i < len(row) and row[i] for row in cells)]
    cells = [[row[i] if i < len(row) else "" for i in used] for row in cells]
    if len(used) < 2 or len(cells) < 2:
        return "\n".join(plain(" – ".join(filter(None, row)).replace("\\|", "|")) for row in cells)
    return "\n\n".join(_blocks([f"| {' | '.join(row)} |" for row in cells], len(used)))


def _blocks(lines: Sequence[str], width: int) -> Iterator[str]:
    head = f"{lines[0]}\n|{' --- |' * width}"
    most = max(BLOCK_CHARACTERS, 4 * len(head))
    block, size = [head], 0
    for line in lines[1:]:
        if size and size + len(line) > most:
            yield "\n".join(block)
            block, size = [head], 0
        block.append(line)
        size += len(line)
    yield "\n".join(block)

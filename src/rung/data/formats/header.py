"""Whether the first record of a table names its columns, and the names of columns where none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

KNOWN = frozenset((
    "input", "inputs", "output", "outputs", "question", "questions", "answer", "answers", "text", "texts", "label",
    "labels", "message", "messages", "prompt", "prompts", "query", "sentence", "utterance", "review", "content",
    "body", "subject", "problem", "request", "source", "instruction", "instructions", "intent", "category", "class",
    "target", "response", "responses", "completion", "expected", "reply", "solution", "summary", "sentiment",
    "result", "id", "group", "context", "references", "gold_ids", "title", "name", "document", "passage", "date",
    "index", "score", "rating", "comment", "description", "topic", "type", "url", "language", "lang", "split",
    "column1", "column_1",
))  # fmt: skip
_FEW_ROWS = 5
_LONG_NAME = 40  # characters


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is a header, the usual case: no header only where the first record is like the others.

    That is so where one of its cells is a category of its column (it stands there again, in rows that are not the
    first one repeated, and the column holds few distinct values), and no other cell is a common name of a column.
    """
    if len(rows) < _FEW_ROWS or len(first) < 2 or not all(cell.strip() for cell in first):
        return True
    if list(first) == [str(i) for i in range(len(first))]:  # as pandas names columns without names
        return True
    others = [row for row in rows if len(row) == len(first) and list(row) != list(first)]
    categories = set()
    for column, cell in enumerate(first):
        values = Counter(row[column] for row in others)
        if values[cell] > 1 and len(values) <= len(others) / 2:
            categories.add(column)
    return not categories or any(_is_known(cell) for i, cell in enumerate(first) if i not in categories)


def looks_like_a_row(header: Sequence[str]) -> bool:
    """Whether a header may be a row: no cell is a common name of a column, and one is a sentence."""
    return not any(map(_is_known, header)) and any(
        len(name) > _LONG_NAME or name.endswith((".", "?", "!", "。", "？")) for name in header
    )


def _is_known(cell: str) -> bool:
    return cell.strip().casefold().replace(" ", "_") in KNOWN


def names_from(first: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The names of columns that a header gives, without spaces around them.

    Columns at the end without a name and without a value are left out; several without a name get column_N.
    """
    names = [cell.strip().strip("\ufeff").strip() for cell in first]
    while names and not names[-1] and not any(row[len(names) - 1] for row in rows if len(row) >= len(names)):
        names.pop()
    if names.count("") > 1:
        names = [name or f"column_{i}" for i, name in enumerate(names, 1)]
    return tuple(names)


def names_of(width: int) -> tuple[str, ...]:
    """column_1, column_2, … for a table without a header."""
    return tuple(f"column_{i}" for i in range(1, width + 1))


def header_problem(names: Sequence[str]) -> str:
    """Why names cannot name columns, or ""."""
    twice = next((n for i, n in enumerate(names) if n and n in names[:i]), None)
    return f'two columns are called "{twice}". Rename one.' if twice is not None else ""

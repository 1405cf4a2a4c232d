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
_MOST_TITLES = 20


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is a header, the usual case: no header only where the first record is like the others.

    That is so where one of its cells is a category of its column (it stands there again, in rows that are not the
    first one repeated, and the column holds few distinct values), and no other cell names its column: by a common name,
    or by one word above texts.
    """
    if len(rows) < _FEW_ROWS or len(first) < 2 or not all(cell.strip() for cell in first):
        return True
    if _are_numbers_of_columns(first):
        return True
    others = [row for row in rows if len(row) == len(first) and list(row) != list(first)]
    categories = set()
    for column, cell in enumerate(first):
        values = Counter(row[column] for row in others)
        if values[cell] > 1 and len(values) <= len(others) / 2:
            categories.add(column)
    return not categories or any(
        is_known(cell) or _is_word_above_texts(cell, [row[i] for row in others])
        for i, cell in enumerate(first)
        if i not in categories
    )


def looks_like_a_row(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a header may be a row: no cell is a common name of a column, and one is a sentence or stands in rows."""
    if any(map(is_known, header)) or _are_numbers_of_columns(header):
        return False
    if any(len(name) > _LONG_NAME or name.endswith((".", "?", "!", "。", "？")) for name in header):
        return True
    others = [row for row in rows if list(row) != list(header)]
    return any(name and sum(name in row[i : i + 1] for row in others) > 1 for i, name in enumerate(header))


def titles(records: Sequence[Sequence[str]]) -> int:
    """How many records stand above the header: a title, a date, names of groups of columns. They leave cells empty.

    Either each holds one cell alone, the first, above a table of several columns; or the first record that fills more
    cells than all before it holds two common names of columns, which none before it does.
    """
    if len(records[0]) < 2:
        return 0
    filled = [sum(map(bool, record)) for record in records]
    known = [sum(map(is_known, record)) for record in records[:_MOST_TITLES]]
    first = next((i for i, count in enumerate(filled) if count > 1), 0)
    table = 2 * sum(count > 1 for count in filled[first:]) > len(filled) - first
    corner = next((i for i, cell in enumerate(records[first]) if cell), 0)
    at_corner = all(record[corner] for record, count in zip(records[:first], filled, strict=False) if count)
    alone = first if table and at_corner and not any(known[:first]) else 0
    header = next((i for i, count in enumerate(known) if count > 1), 0)
    return header if header > alone and filled[header] > max(filled[alone:header]) else alone


def _are_numbers_of_columns(first: Sequence[str]) -> bool:
    """Whether cells are 0, 1, 2, …, as pandas names columns without names."""
    return list(first) == [str(i) for i in range(len(first))]


def _is_word_above_texts(cell: str, values: Sequence[str]) -> bool:
    """Whether a cell is one word, such as email_body, above values of which nearly all have several."""
    return cell.isprintable() and " " not in cell.strip() and sum(" " in v for v in values) >= 0.9 * len(values)


def is_known(cell: str) -> bool:
    """Whether a cell is a common name of a column."""
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


def no_header(names: Sequence[str]) -> str:
    """What to report of a table without a header."""
    return f"no header: the columns are called {', '.join(names[:3])}{' …' * (len(names) > 3)}"


def header_problem(names: Sequence[str]) -> str:
    """Why names cannot name columns, or ""."""
    twice = next((name for name, count in Counter(names).items() if name and count > 1), None)
    return f'two columns are called "{twice[:60]}". Rename one.' if twice is not None else ""

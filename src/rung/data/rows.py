"""Rows of data files, with the line each one stood on, and the words in which they are spoken of.

Knows rows, cells and JSON; files are read by `rung.data.formats`. What is wrong with one row is collected, so that a
user sees all bad rows in one message.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rung.errors import DataError

ROW_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather", ".xlsx")
"""Of files whose names say that they hold rows."""
PACKED_SUFFIXES = (".gz", ".zst")
SUFFIXES = (*ROW_SUFFIXES, *PACKED_SUFFIXES, ".txt")
"""Of files that can be read; a .txt file where it clearly holds rows."""
GOLD_SUFFIX = ".gold.jsonl"
"""Of the copy of a file of examples that has a column gold_ids."""
SCHEMA_SUFFIX = ".schema.json"
"""Of a file beside the examples that says the form of their answers."""
SUPPORTED = "JSONL, JSON, CSV, TSV, Parquet, Excel (.xlsx) or Arrow, packed as .gz or .zst if you like"
PROBLEMS_SHOWN = 10

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Row:
    """One record. where: "examples.csv, line 7". key: "line-7", the id of a row that brings none."""

    where: str
    key: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row cannot be used."""

    where: str
    text: str


@dataclass
class Table:
    """The rows of one file in order, the union of their columns, and the rows that could not be read."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    how: tuple[str, ...] = ()
    """What was recognised and is to be reported: "separated by semicolons", "UTF-16", "no header: …"."""

    def add(self, place: str, values: Mapping[str, object]) -> None:
        """Adds a row. place: "line 7", of which its key is made."""
        self.rows.append(Row(self._where(place), place.replace(" ", "-"), values))

    def refuse(self, place: str, text: str) -> None:
        """Adds a problem: why the row at a place cannot be used."""
        self.problems.append(Problem(self._where(place), text))

    def _where(self, place: str) -> str:
        return f"{self.path.name}, {place}"

    def call(self, name: str) -> None:
        """From now on messages call the file by that name: files of one name are told apart by their folders."""
        if name != self.path.name:
            self.rows = [replace(row, where=name + row.where.removeprefix(self.path.name)) for row in self.rows]
            self.problems = [replace(p, where=name + p.where.removeprefix(self.path.name)) for p in self.problems]

    def taken(self) -> Iterator[Row]:
        """The rows in order, each let go as it is returned: a million rows need not be held twice."""
        self.rows.reverse()
        while self.rows:
            yield self.rows.pop()


def raise_problems(problems: Sequence[Problem]) -> None:
    """One DataError about every bad row; the first ten are spelt out. Nothing happens without problems."""
    if not problems:
        return
    if len(problems) == 1:
        raise DataError(f"{problems[0].where}: {problems[0].text}")
    names = list(dict.fromkeys(p.where.split(", ")[0] for p in problems))
    files = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    lines = [f"{files}: {len(problems)} problems in its rows. Correct them and run again."]
    lines += [f"  {p.where}: {p.text}" for p in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"  … and {len(problems) - PROBLEMS_SHOWN} more")
    raise DataError("\n".join(lines))


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of `words`, or None when nothing is close."""
    by_folded = {w.casefold(): w for w in reversed(list(words))}
    close = difflib.get_close_matches(word.casefold()[:200], list(by_folded), n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def shown_columns(columns: Sequence[str]) -> str:
    """The columns of a table in a message."""
    shown = ", ".join(c[:60] or '""' for c in columns[:20]) or "none"
    return f"{shown}, …" if len(columns) > 20 else shown


def as_text(value: object) -> str:
    """A cell as text: text as it is, anything else as JSON writes it. None is the empty text.

    Raises ValueError for text that no UTF-8 file can hold.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"holds half of a surrogate pair at character {e.start + 1}; remove it") from e
    return text


def unpacked_name(path: Path) -> Path:
    """A path without .gz or .zst at its end."""
    return path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path


def parse_json(text: str) -> object:
    """JSON as the standard has it: no NaN, no infinities, no key twice. Raises ValueError that says what and where."""
    return decoded(_STRICT.decode, text)


def decoded(decode: Callable[[str], Value], text: str) -> Value:
    """What a decoder of JSON makes of a text. Raises ValueError that says what is wrong and where."""
    try:
        return decode(text)
    except json.JSONDecodeError as e:
        place = f"line {e.lineno}, column {e.colno}" if "\n" in text.strip() else f"column {e.colno}"
        raise ValueError(f"not valid JSON: {_cause(e)} at {place}") from e
    except RecursionError as e:
        raise ValueError("not usable JSON: nested too deeply") from e
    except ValueError as e:
        if "integer string conversion" in str(e):
            raise ValueError("not usable JSON: a whole number has over 4,000 digits") from e
        raise


def _cause(error: json.JSONDecodeError) -> str:
    """What is wrong with a text of JSON, in words where it is a thing that people write."""
    here, before = error.doc[error.pos :].lstrip(), error.doc[: error.pos].rstrip()
    if here.startswith(("//", "/*", "#")):
        return "a comment, which JSON does not know,"
    if here.startswith(("]", "}")) and before.endswith(","):
        return f'a comma too many before "{here[0]}"'
    if here.startswith("'"):
        return "single quotes, as Python prints them (write rows with json.dumps),"
    if word := re.match(r"(None|True|False)\b", here):
        return f"Python's {word[0]}, which JSON writes {'null' if word[0] == 'None' else word[0].lower()},"
    if call := re.match(r"(ObjectId|ISODate|Number\w+|Timestamp)\(", here):
        return f"{call[1]}(…), as MongoDB's shell prints it (export with mongoexport),"
    if error.msg.startswith("Invalid control character"):
        return r"a line end or tab inside a text, which JSON writes \n and \t,"
    return error.msg.removesuffix(" at")


def json_decoder(on_nan: Callable[[], None] | None = None) -> json.JSONDecoder:
    """A strict decoder of JSON. on_nan: is called for each NaN, which is then a missing value (None)."""

    def constant(name: str) -> object:
        if name == "NaN" and on_nan is not None:
            return on_nan()
        raise ValueError(f"{name} is not a value in JSON; give a real value or remove the row")

    return json.JSONDecoder(parse_constant=constant, parse_float=_finite, object_pairs_hook=_object_of_distinct_keys)


def decode(raw: bytes, path: Path, line: int) -> str:
    """UTF-8 text of one line; a byte-order mark before line 1 is dropped. Raises DataError with line and byte."""
    if line == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name}, line 1: the file is UTF-16, not UTF-8. Save it again as UTF-8.")
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as e:
        raise DataError(
            f"{path.name}, line {line}: byte {e.start + 1} of the line (0x{raw[e.start]:02x}) is not UTF-8. "
            "Save the file again as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8)."
        ) from e


def kind_of(value: object) -> str:
    """What a value of JSON or YAML is, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true or false"
    words = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return words.get(type(value), f"a {type(value).__name__}")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _object_of_distinct_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = {sys.intern(name): value for name, value in pairs}  # a million rows share the names of their columns
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise ValueError(f"the key {twice!a} stands twice in one object")
    return found


_STRICT = json_decoder()

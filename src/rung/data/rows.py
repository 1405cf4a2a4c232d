"""Rows of JSONL, CSV, TSV and JSON files, with the line each one stood on.

Knows file formats and encodings; knows nothing of examples, documents or tasks. What makes a whole file
unreadable (encoding, an endless line) raises at once; what is wrong with one row is collected, so that a user sees
all bad rows in one message.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rung.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".tsv", ".json")
SUPPORTED = "JSONL (.jsonl), CSV (.csv), TSV (.tsv) or a JSON list (.json)"
MAX_LINE_BYTES = 10_000_000
MAX_JSON_BYTES = 200_000_000
PROBLEMS_SHOWN = 10


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

    def taken(self) -> Iterator[Row]:
        """The rows in order, each let go as it is returned: a million rows need not be held twice."""
        self.rows.reverse()
        while self.rows:
            yield self.rows.pop()


def read_table(path: Path) -> Table:
    """Every row of a file.

    Raises DataError for an absent, empty or unsupported file, a wrong encoding or a line over 10 MB (which is
    refused after reading 10 MB of it). Rows that are not objects or not JSON are in `problems`.
    """
    suffix = path.suffix.lower()
    if not os.path.exists(path):
        raise DataError(f"{path.name}: no such file ({path}). Check the path.")
    if os.path.isdir(path):
        raise DataError(f"{path.name}: is a folder ({path}). Name the file in it.")
    if not os.path.isfile(path):
        raise DataError(f"{path.name}: is not a regular file ({path}). Copy the data into a file first.")
    if suffix not in SUFFIXES:
        raise DataError(f'{path.name}: files that end in "{suffix}" cannot be read. Convert it to {SUPPORTED}.')
    try:
        if suffix == ".jsonl":
            table = _read_jsonl(path)
        elif suffix == ".json":
            table = _read_json(path)
        else:
            table = _read_csv(path, "," if suffix == ".csv" else "\t")
    except OSError as e:
        raise DataError(f"{path.name}: cannot be read ({e.strerror}). Check its permissions: {path}") from e
    if not table.rows and not table.problems:
        raise DataError(f"{path.name}: the file holds no rows. Put one record on each line.")
    seen: dict[str, None] = {}
    for row in table.rows:
        seen.update(dict.fromkeys(row.values))
    table.columns = [c.encode(errors="replace").decode() for c in seen]
    return table


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


def parse_json(text: str) -> object:
    """JSON as the standard has it: no NaN, no infinities, no key twice. Raises ValueError that says what and where."""
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object_of_distinct_keys
        )
    except json.JSONDecodeError as e:
        place = f"line {e.lineno}, column {e.colno}" if "\n" in text.strip() else f"column {e.colno}"
        raise ValueError(f"not valid JSON: {e.msg} at {place}") from e
    except RecursionError as e:
        raise ValueError("not usable JSON: nested too deeply") from e


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


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text with its line end) of a UTF-8 file; holds at most one line of 10 MB in memory."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path.name}, line {number}: longer than {MAX_LINE_BYTES // 1_000_000} MB. "
                    "Put each record on its own line, and cut long texts."
                )
            yield number, decode(raw, path, number)


def _read_jsonl(path: Path) -> Table:
    table = Table(path)
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        if not table.rows and not table.problems and line.strip() in ("[", "[{"):
            raise DataError(f"{where}: a JSON list, not one record a line. Rename the file to {path.stem}.json.")
        _add(table, where, f"line-{number}", line)
    return table


def _read_json(path: Path) -> Table:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{path.name}: larger than {MAX_JSON_BYTES // 1_000_000} MB. Convert it to JSONL (.jsonl).")
    text = "".join(decode(raw, path, n) for n, raw in enumerate(path.read_bytes().splitlines(keepends=True), 1))
    if not text.strip():
        return Table(path)
    try:
        items = parse_json(text)
    except ValueError as e:
        raise DataError(f"{path.name}: {e}. Correct it, or write one record a line as .jsonl.") from e
    if not isinstance(items, list):
        raise DataError(f"{path.name}: must hold a list of objects, holds {kind_of(items)}. Write [{{…}}, {{…}}].")
    table = Table(path)
    for number, item in enumerate(items, 1):
        _add_value(table, f"{path.name}, item {number}", f"item-{number}", item)
    return table


def _add(table: Table, where: str, key: str, line: str) -> None:
    try:
        value = parse_json(line)
    except ValueError as e:
        table.problems.append(Problem(where, str(e) if ";" in str(e) else f"{e}; correct or remove the line"))
    else:
        _add_value(table, where, key, value)


def _add_value(table: Table, where: str, key: str, value: object) -> None:
    if isinstance(value, dict):
        table.rows.append(Row(where, key, value))
    else:
        table.problems.append(Problem(where, f'not an object like {{"input": …, "output": …}} but {kind_of(value)}'))


def _read_csv(path: Path, delimiter: str) -> Table:
    table = Table(path)
    header: list[str] | None = None
    for number, cells in _csv_records(path, delimiter):
        if not cells:
            continue
        if header is None:
            header = _header(cells, path, number)
            continue
        where = f"{path.name}, line {number}"
        if len(cells) != len(header):
            text = f"{len(cells)} fields, but the header has {len(header)}; quote text that holds the separator"
            table.problems.append(Problem(where, text))
            continue
        table.rows.append(Row(where, f"line-{number}", dict(zip(header, cells, strict=True))))
    if header is not None and not table.rows and not table.problems:
        raise DataError(f"{path.name}: has a header but no rows. Put one record on each line below it.")
    return table


def _header(cells: list[str], path: Path, number: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((n for i, n in enumerate(names) if n and n in names[:i]), None)
    if twice is not None:
        raise DataError(f'{path.name}, line {number}: two columns are called "{twice}". Rename one.')
    if len(names) == 1:
        fixes = {
            ";": ("semicolons", "Save it with commas."),
            "\t": ("tabs", f"Rename it to {path.stem}.tsv."),
            ",": ("commas", f"Rename it to {path.stem}.csv."),
        }
        if sign := next((s for s in fixes if s in names[0]), None):
            name, fix = fixes[sign]
            raise DataError(f"{path.name}, line {number}: the columns are separated by {name}. {fix}")
    return names


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line the record starts on, its cells). Python's limit on a field, global to the process, is put back."""

    def lines() -> Iterator[str]:
        for number, text in read_lines(path):
            if "\0" in text:
                raise DataError(f"{path.name}, line {number}: holds a NUL byte. Save the file again as plain text.")
            yield text

    # newline="" semantics: the csv module must see line ends inside quotes as they are.
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    start = 1
    while True:
        limit = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            cells = next(reader, None)
        except csv.Error as e:
            if "field larger" in str(e):
                fact = f"a field is longer than {MAX_LINE_BYTES // 1_000_000} MB; look for a quote that is never closed"
            elif "unexpected end" in str(e):
                fact = "a quote is opened here and never closed"
            else:
                fact = f'not valid CSV ({e}); write a quote inside quoted text twice ("")'
            raise DataError(f"{path.name}, line {start}: {fact}.") from e
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        yield start, cells
        start = reader.line_num + 1


def kind_of(value: object) -> str:
    """What a value of JSON or YAML is, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true or false"
    words = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return words.get(type(value), f"a {type(value).__name__}")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a value in JSON; give a real value or remove the row")


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

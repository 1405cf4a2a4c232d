"""Rows of JSON: one record a line, a list, an object of columns, a list inside an object, or objects in a row."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import cast

from rung.data.formats.encoding import Encoding, beginning, huge_cell, lines_of, text_of
from rung.data.formats.source import Source
from rung.data.rows import Table, decoded, json_decoder, kind_of
from rung.errors import DataError

MAX_JSON = 200_000_000
_HEAD = 1 << 20
_NEXT = re.compile(r"\n(?=[{\[])")
_SPACE = re.compile(r"[\s,]*")
_TURNS = frozenset({"messages", "conversation", "conversations", "turns", "dialog", "dialogue", "tools", "chosen",
                    "rejected", "references", "answers"})  # fmt: skip
"""Lists of objects that belong to one record and are no records themselves."""
_TEXTS = frozenset({"text", "input", "output", "question", "answer", "completion", "response", "content"})
"""Names of texts by which an object shows that it is one record."""
_EXTENDED = frozenset({"$oid", "$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$uuid"})
"""How MongoDB exports values that JSON has no types for: {"$oid": "5f…"}."""


def clearly_json(source: Source, encoding: Encoding) -> bool:
    """Whether the text begins with a value of JSON that is an object or a list of some."""
    head = beginning(source, encoding, _HEAD).lstrip()
    if not head.startswith(("{", "[")):
        return False
    line = head.split("\n", 1)[0].strip()
    if line in ("{", "[", "[{"):
        return True
    for text in (line, head):
        try:
            value, end = _PLAIN.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        if text[end:].lstrip(" \t\r,")[:1] not in ("", "\n", "{", "["):  # a cell, and others after it
            return False
        return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(v, dict | list) for v in value))
    return re.match(r'[\[{]\s*[\[{]?\s*"', head) is not None


def read_json(source: Source, encoding: Encoding, *, listed: bool) -> Table:
    """The rows of a JSON or JSONL file, whichever its content is.

    listed: the name promises one JSON value, not lines. Raises DataError for text that is no JSON at all and for JSON
    that holds no rows or several lists of them.
    """
    reader = _Reader(source, encoding)
    table = reader.of_lines() if _holds_lines(source, encoding, listed) else reader.of_values()
    if listed and reader.by_line:
        reader.how.append("one record a line (JSONL)")
    table.how = (*reader.how, *reader.of_mongo(), *reader.missing())
    return table


def _holds_lines(source: Source, encoding: Encoding, listed: bool) -> bool:
    """Whether each line is a record. listed: where the first line is no JSON by itself, the file is one value."""
    head = beginning(source, encoding, _HEAD)
    first, _, rest = head.lstrip().partition("\n")
    first = first.strip()
    if not first.startswith(("{", "[")):
        return not listed
    if len(head) == _HEAD and not rest:  # a line of over 1 MB: a list, or the first of long records
        return first.startswith("{") and not listed
    try:
        _PLAIN.decode(first)
    except (ValueError, RecursionError):
        if first.startswith("[") or listed:
            return False
        return not _spans_lines(head)
    return bool(rest.strip())


def _spans_lines(head: str) -> bool:
    """Whether the first object goes over several lines."""
    start = len(head) - len(head.lstrip())
    try:
        _, end = _PLAIN.raw_decode(head, start)
    except (ValueError, RecursionError):
        return head.lstrip().split("\n", 1)[0].strip() == "{"
    return "\n" in head[start:end]


class _Reader:
    """Makes the table of one file. how: what was recognised; by_line: whether each line was a record."""

    def __init__(self, source: Source, encoding: Encoding) -> None:
        self.source, self.encoding = source, encoding
        self.table = Table(source.path)
        self.how: list[str] = []
        self.by_line = False
        self._nan = False
        self._with_nan: list[str] = []
        self._extended: dict[str, None] = {}
        self._decoder = json_decoder(self._saw_nan)

    def of_mongo(self) -> list[str]:
        """What to report of values that MongoDB exports as objects."""
        some = ", ".join(list(self._extended)[:5])
        return [f'values that MongoDB exports as objects, such as {{"$oid": …}}, are read in {some}'] if some else []

    def missing(self) -> list[str]:
        """What to report of NaN, which stands for a missing value in files of pandas."""
        if self._nan:  # of a whole text, where its row is not known
            return ["NaN is read as a missing value"]
        if not self._with_nan:
            return []
        more = f" and {len(self._with_nan) - 5:,} rows more" if len(self._with_nan) > 5 else ""
        return [f"NaN in {', '.join(self._with_nan[:5])}{more} is read as a missing value"]

    def of_lines(self) -> Table:
        self.by_line = True
        with lines_of(self.source, self.encoding) as lines:
            for number, line in lines:
                if line.strip():
                    self._line(f"line {number}", line)
        return self.table

    def _line(self, place: str, line: str) -> None:
        text = line.strip().lstrip("\ufeff")  # files with a mark that were joined
        if text.endswith("},"):
            text = text[:-1]
        try:
            value = decoded(self._decoder.decode, text)
        except ValueError as e:
            self._nan = False
            self.table.refuse(place, str(e) if ";" in str(e) else f"{e}; correct or remove the line")
        else:
            self._add(place, value)

    def of_values(self) -> Table:
        """The rows of a text that is one value of JSON, or objects one after the other."""
        text = text_of(self.source, self.encoding, MAX_JSON)
        values: list[tuple[int, object]] = []
        problems: list[tuple[int, str]] = []
        at, line, counted = _SPACE.match(text).end(), 1, 0  # type: ignore[union-attr]
        while at < len(text):
            line, counted = line + text.count("\n", counted, at), at
            try:
                value, at = decoded(partial(self._decoder.raw_decode, idx=at), text)
                values.append((line, value))
            except ValueError as e:
                if not values:
                    raise DataError(
                        f"{self.source.name}: {e}. Correct it, or write one record a line as .jsonl."
                    ) from e
                problems.append((line, f"{e}; correct or remove the object"))
                following = _NEXT.search(text, at + 1)
                at = following.end() if following else len(text)
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if len(values) == 1 and not problems:
            self._container(*values[0])
            return self.table
        self.how.append("objects one after the other, over several lines each")
        for line, value in values:
            self._add(f"line {line}", value)
        for line, problem in problems:
            self.table.refuse(f"line {line}", problem)
        return self.table

    def _container(self, line: int, value: object) -> None:
        if isinstance(value, list):
            if self.source.path.suffix.lower() in (".jsonl", ".ndjson"):
                self.how.append("one JSON list, not one record a line")
            items = value
        elif isinstance(value, dict):
            found = self._items(value)
            if found is None:
                self._add(f"line {line}", value)
                return
            items = found
        else:
            raise DataError(
                f"{self.source.name}: must hold a list of objects, holds {kind_of(value)}. Write [{{…}}, {{…}}]."
            )
        for number, item in enumerate(items, 1):
            self._add(f"item {number}", item)

    def _items(self, value: dict[str, object]) -> list[object] | None:
        """The records inside one object, by the ways in which programs write tables; None where it is a record."""
        if any(isinstance(value.get(name), str) for name in _TEXTS):
            return None
        path = ""
        while len(value) == 1 and isinstance(only := next(iter(value.values())), dict):
            path, value = f"{path}{next(iter(value))}.", only
        lists = _lists(value) or {f"{k}.{name}": v for k, d in value.items() for name, v in _lists(d).items()}
        if len(lists) == 1:
            ((name, found),) = lists.items()
            self.how.append(f'the records are the list "{path}{name}" inside one object')
            return found
        if len(lists) > 1:
            raise DataError(
                f"{self.source.name}: holds several lists of records: {', '.join(list(lists)[:10])}. "
                "Write each into a file of its own."
            )
        if (table := _split_table(value)) is not None:
            self.how.append('columns and data apart (pandas, orient="split")')
            return table
        if (table := _columns(value)) is not None:
            self.how.append("an object of columns")
            return table
        if (table := _by_name(value)) is not None:
            self.how.append("an object of records by name; the name is the id")
            return table
        if not value or all(isinstance(v, dict) for v in value.values()):
            raise DataError(f"{self.source.name}: must hold a list of objects, holds a mapping. Write [{{…}}, {{…}}].")
        return None

    def _add(self, place: str, value: object) -> None:
        if self._nan and self.by_line:
            self._with_nan.append(place)
            self._nan = False
        if isinstance(value, dict):
            if not self.by_line and (problem := huge_cell(value)):
                self.table.refuse(place, problem)
                return
            for name, cell in value.items():
                if isinstance(cell, dict) and len(cell) == 1 and not _EXTENDED.isdisjoint(cell):
                    value[name] = next(iter(cell.values()))
                    self._extended[name] = None
            self.table.add(place, value)
        else:
            self.table.refuse(place, f'not an object like {{"input": …, "output": …}} but {kind_of(value)}')

    def _saw_nan(self) -> None:
        self._nan = True


_PLAIN = json.JSONDecoder()


def _lists(value: object) -> dict[str, list[object]]:
    """Name -> list of records, of those that an object holds."""
    if not isinstance(value, dict):
        return {}
    return {
        k: v
        for k, v in value.items()
        if k not in _TURNS and isinstance(v, list) and v and all(isinstance(item, dict) for item in v)
    }


def _columns(value: dict[str, object]) -> list[object] | None:
    """{"input": [...], "output": [...]}, or {"input": {"0": ...}, "output": {"0": ...}} as pandas writes it."""
    parts = list(value.values())
    if len(parts) > 1 and all(isinstance(v, dict) and v and all(k.isdecimal() for k in v) for v in parts):
        keyed = cast("list[dict[str, object]]", parts)
        if any(v.keys() != keyed[0].keys() for v in keyed):
            return None
        parts = [list(v.values()) for v in keyed]
    if len(parts) < 2 or not all(isinstance(v, list) for v in parts):
        return None
    lists = cast("list[list[object]]", parts)
    if len({len(v) for v in lists}) != 1 or not lists[0]:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]


def _split_table(value: dict[str, object]) -> list[object] | None:
    names, rows = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(n, str) for n in names):
        return None
    if len(set(names)) < len(names) or not all(isinstance(r, list) and len(r) == len(names) for r in rows):
        return None
    return [dict(zip(names, row, strict=True)) for row in rows]


def _by_name(value: dict[str, object]) -> list[object] | None:
    """{"q1": {"input": ...}, "q2": {"input": ...}}: records of the same keys."""
    parts = list(value.values())
    if len(parts) < 2 or not all(isinstance(v, dict) and v for v in parts):
        return None
    records = cast("list[dict[str, object]]", parts)
    if not any(key in record for key in records[0] for record in records[1:]):
        return None
    return [record if "id" in record else {"id": name, **record} for name, record in zip(value, records, strict=True)]

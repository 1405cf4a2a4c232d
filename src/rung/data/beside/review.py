"""What people say of synthetic rows: a file of them, decided row by row, or as a CSV for a spreadsheet and back.

Every row keeps its id and all of its keys. Writes whole files only, so that no decision is lost by a kill.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.data.beside.synthetic import Review, fault_of_answer, review_of
from rung.data.formats import read_table
from rung.data.rows import Problem, raise_problems
from rung.errors import DataError
from rung.records import write_lines, write_text
from rung.types import Task

COLUMNS = ("id", "review", "output", "input", "context", "instruction", "turns", "gold_ids", "kind", "votes", "from")
"""Of the CSV. `review` and `output` are read back; the others are there to be read."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters that a spreadsheet takes for a formula, or drops. Source: OWASP, CSV injection."""
_VALUE = re.compile(
    r"\s*[($€£¥%]*\s*[.,]?\d|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[\s.,/-]*\d"
    r"|(?:true|false|wahr|falsch|vrai|faux|verdadero|falso|vero|waar|onwaar)\b",
    re.IGNORECASE,
)
"""Beginnings of what a spreadsheet takes for a number, a date or a truth value, and writes back in another form."""
_QUOTE = "'"
_ODD = re.compile(r"[^\x00-\x7f]+|\?+")  # what an encoding may lack, and what stands in its place then
_MOST_SHOWN = 30_000
"""Characters of a cell that is not read back; one of more than 32,767 spoils the rows of a spreadsheet."""

_Row = dict[str, Any]


@dataclass(frozen=True)
class Returned:
    """What came back in a CSV: rows whose review or answer is new, and rows of the file that it does not hold."""

    changed: int
    missing: int


class ReviewFile:
    """The rows of a file that `rung synth` wrote, with what was decided so far.

    rows: as the file has them, in order. task: says what an answer may be; None: any text may be one.
    Raises DataError where it is no such file.
    """

    def __init__(self, path: Path, task: Task | None = None) -> None:
        if path.suffix.lower() not in (".jsonl", ".ndjson"):
            raise DataError(f"{path}: is no file of JSON lines. Name the file that rung synth wrote.")
        self.path, self.task = path, task
        self._seen = _stamp(path)
        self.rows: list[_Row] = _read(path)
        self._place = {str(row["id"]): place for place, row in enumerate(self.rows)}

    @property
    def open(self) -> list[int]:
        """Places of the rows that nobody has decided about."""
        return [place for place, row in enumerate(self.rows) if row.get("review") is None]

    def counts(self) -> dict[str, int]:
        """How many rows are accepted, edited, rejected, and open."""
        found = {"accepted": 0, "edited": 0, "rejected": 0, "open": 0}
        for row in self.rows:
            found[row.get("review") or "open"] += 1
        return found

    def fault(self, output: str) -> str | None:
        """Why the answer cannot be that of a row that trains; None where it can, or the task is not known."""
        return fault_of_answer(self.task, output) if self.task is not None else None

    def decide(self, place: int, review: Review | None, output: str | None = None) -> None:
        """Sets the review of a row, and its answer where one is given, and saves the file.

        Raises DataError where somebody else has changed the file since it was read.
        """
        self._set(self.rows[place], review, output)
        self._save()

    def to_csv(self, path: Path) -> None:
        """Writes all rows for a spreadsheet, as UTF-8 with a mark, so that Excel reads it as it is."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows([safe_cell(_cell(row, column)) for column in COLUMNS] for row in self.rows)
        write_text(path, "\ufeff" + text.getvalue())

    def from_csv(self, path: Path) -> Returned:
        """Takes over the reviews and answers of a CSV (or a sheet of Excel) and saves the file.

        An answer that was changed counts as edited unless its row says rejected. An empty review leaves what was
        decided, be it after the CSV was written; "open" takes it back. Raises DataError for ids that the file does not
        hold or that stand twice, for unknown reviews, and for answers that are empty, have lost their letters, or are
        none of the task's; nothing is saved then.
        """
        problems: list[Problem] = []
        wanted: dict[int, tuple[Review | None, str | None]] = {}
        for where, cells in _returned_rows(path):
            try:
                place, decision = self._returned(cells)
                if place in wanted:
                    raise ValueError(f'the id "{cells["id"]}" stands twice; keep one of these rows')
                wanted[place] = decision
            except ValueError as fault:
                problems.append(Problem(where, str(fault)))
        raise_problems(problems)
        before = [(row.get("review"), row["output"]) for row in self.rows]
        for place, (review, output) in wanted.items():
            self._set(self.rows[place], review, output)
        changed = sum((r.get("review"), r["output"]) != old for r, old in zip(self.rows, before, strict=True))
        if changed:
            self._save()
        return Returned(changed, len(self.rows) - len(wanted))

    def _returned(self, cells: dict[str, str]) -> tuple[int, tuple[Review | None, str | None]]:
        own = cells["id"].strip()
        if own not in self._place:
            raise ValueError(f'the id "{own[:60]}" is none of {self.path.name}; keep the column id as it is')
        row, review = self.rows[self._place[own]], review_of(cells["review"])
        decided = cells["review"].strip() != ""
        now, output = str(row["output"]), _plain(cells["output"])
        earlier = not decided and output == _plain(str(row.get("taught", now)))  # from before it was edited
        if output == _plain(now) or earlier:
            if review in ("accepted", "edited") and (fault := self.fault(now)) is not None:
                raise ValueError(fault)
            return self._place[own], (review if decided else row["review"], None)
        if not output.strip() and review != "rejected":
            raise ValueError("the answer is empty; write rejected as its review to leave the row out")
        if _lost_letters(now, output):
            raise ValueError('letters of the answer are question marks now; save the sheet as "CSV UTF-8"')
        if review != "rejected" and (fault := self.fault(output)) is not None:
            raise ValueError(fault)
        return self._place[own], (review, output)

    def _set(self, row: _Row, review: Review | None, output: str | None) -> None:
        if output is not None and output != row["output"]:
            row.setdefault("taught", row["output"])  # the answer that the model gave
            row["output"] = output
            row.pop("references", None)  # accepted answers beside the one that was wrong
            review = review if review == "rejected" else "edited"
        row["review"] = review

    def _save(self) -> None:
        if _stamp(self.path) != self._seen:
            raise DataError(f"{self.path}: was changed meanwhile; this decision is not saved. Start rung review again.")
        write_lines(self.path, self.rows)
        self._seen = _stamp(self.path)


def safe_cell(text: str) -> str:
    """A cell that a spreadsheet leaves as it is: an apostrophe stands before what could be a formula or a value."""
    return _QUOTE + text if _is_read(text) or _is_quoted(text) else text


def plain_cell(text: str) -> str:
    """The text of a cell that `safe_cell` made."""
    return text[1:] if _is_quoted(text) else text


def _is_read(text: str) -> bool:
    return text.startswith(_FORMULA) or _VALUE.match(text) is not None


def _is_quoted(text: str) -> bool:
    rest = text.lstrip(_QUOTE)
    return len(rest) < len(text) and (not rest or _is_read(rest))


def _lost_letters(before: str, after: str) -> bool:
    """Whether a text was saved in an encoding that lacks some of its letters."""
    return after.count("?") > before.count("?") and _ODD.sub("?", before) == _ODD.sub("?", after)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _plain(text: str) -> str:
    """Line ends as spreadsheets may write them back are no change."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _cell(row: _Row, column: str) -> str:
    origin = row.get("origin") or {}
    value = origin.get(column) if column in ("kind", "votes", "from") else row.get(column)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if column in ("id", "output") or len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} […]"


def _read(path: Path) -> list[_Row]:
    problems: list[Problem] = []
    rows: list[_Row] = []
    table = read_table(path)
    raise_problems(table.problems)
    for row in table.rows:
        if not isinstance(row.values.get("input"), str) or not isinstance(row.values.get("output"), str):
            problems.append(Problem(row.where, "has no input and output as texts; name a file that rung synth wrote"))
            continue
        try:
            review = review_of(row.values.get("review"))
        except ValueError as fault:
            problems.append(Problem(row.where, str(fault)))
            continue
        rows.append({"id": row.key, **row.values, "review": review})
    raise_problems(problems)
    twin, times = Counter(str(row["id"]) for row in rows).most_common(1)[0]
    if times > 1:
        raise DataError(f'{path.name}: the id "{twin[:60]}" stands twice. Make ids unique.')
    return rows


def _returned_rows(path: Path) -> Sequence[tuple[str, dict[str, str]]]:
    """(where it stands, its id, review and output as plain texts) of each row of a CSV or sheet."""
    names = ("id", "review", "output")
    found = _as_written(path)
    if found is None:
        table = read_table(path)
        raise_problems(table.problems)
        found = [(row.where, {k: "" if v is None else str(v) for k, v in row.values.items()}) for row in table.rows]
    if not found or not set(names) <= set(found[0][1]):
        shown = ", ".join(found[0][1]) if found else "none"
        raise DataError(f"{path.name}: needs the columns id, review and output; its columns are {shown[:200]}.")
    return [(where, {name: plain_cell(cells.get(name) or "") for name in names}) for where, cells in found]


def _as_written(path: Path) -> list[tuple[str, dict[str, str]]] | None:
    """The rows of a CSV as UTF-8, to the last space; None for anything else, which is read by what it holds."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error:
        return None
    if not records or "id" not in records[0] or "\0" in text:
        return None
    width = len(records[0])
    if any(len(record) != width for record in records if record):
        return None
    rows = [(n, record) for n, record in enumerate(records[1:], 2) if any(map(str.strip, record))]
    return [(f"{path.name}, row {n}", dict(zip(records[0], record, strict=True))) for n, record in rows]

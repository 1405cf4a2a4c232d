"""`openai-jsonl`, `messages`, `alpaca`, `sharegpt`: the rows that a solution learnt from, to train it elsewhere.

Nothing answers from them; what was written is read back by rung's own reader, and by `datasets` where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rung.serving.exports.export import Export, Exported, ExportOptions, ExportSource, NamedCheck
from rung.serving.exports.train_rows import TrainRows, train_rows
from rung.types import Example, Message, TrainingRow

FILE = "train.jsonl"

_LIMITS = (512, 2_048, 8_192, 65_536)
"""Tokens of a row that trainers and services often cut at; the last is OpenAI's for its small models."""
_TURN = 4  # tokens of the marks around a turn, about
_LEAST_ROWS = 10  # that OpenAI asks for
_ROLES = ("system", "user", "assistant")


def write(source: ExportSource, folder: Path, options: ExportOptions, *, shape: str, strict: bool) -> Exported:
    """Writes train.jsonl. strict: rows of turns and nothing else, as OpenAI checks them."""
    from rung.data.shapes import rows_of, write_rows

    found = train_rows(source)
    examples = [_example(id_, row) for id_, row in zip(found.ids, found.rows, strict=True)]
    path = folder / FILE
    if strict:
        lines = ({"messages": row["messages"]} for row in rows_of(examples, shape))
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8", newline="\n")
    else:
        write_rows(examples, shape, path)
    checks = [_read_back(path, shape, examples), _sealed(found)]
    if strict:
        checks.append(_as_openai_checks(path))
    if importlib.util.find_spec("datasets") is not None:
        checks.append(_by_datasets(path, shape, len(examples)))
    return Exported((FILE,), _notes(source, found), checks=tuple(checks))


def _example(id_: str, row: TrainingRow) -> Example:
    """A training row as an example whose instruction is all that its system turn says."""
    system = row.messages[0].content if row.messages[0].role == "system" else ""
    turns = [m for m in row.messages if m.role != "system"]
    return Example(
        id_,
        turns[-1].content,
        row.answer,
        (row.answer,),
        row=id_.replace("-", " "),
        instruction=system or None,
        turns=tuple(turns[:-1]),
    )


# ---- what is checked ----------------------------------------------------------------------------


def _read_back(path: Path, shape: str, examples: Sequence[Example]) -> NamedCheck:
    """Whether rung reads the rows that it wrote, texts and turns."""
    from rung.data.formats import read_table
    from rung.data.shapes import flat, recognised
    from rung.data.shapes.reading import RowReader

    table = read_table(path)
    reading = recognised(table.columns, table.rows, None, shape)
    read = RowReader(reading.fields, reading.answers(empty=True))
    found = [_said(read(row)) for row in flat(table.rows)]
    wanted = [_said(example) for example in examples]
    equal = sum(a == b for a, b in zip(found, wanted, strict=False))
    return NamedCheck("read back", found == wanted, f"{equal} of {len(wanted)} rows equal, read as {shape}")


def _said(example: Example) -> tuple[str, tuple[Message, ...], str, str]:
    return example.instruction or "", example.turns, example.input, example.output


def _sealed(found: TrainRows) -> NamedCheck:
    held = sum(digest in found.forbidden for digest in found.digests)
    return NamedCheck("no row of dev or test", held == 0, f"{held} of {len(found.rows)} inputs stand in one of them")


def _as_openai_checks(path: Path) -> NamedCheck:
    """The checks of a chat data set that OpenAI documents.

    Source: OpenAI Cookbook, Data preparation and analysis for chat model fine-tuning.
    """
    lines = path.read_text("utf-8").splitlines()
    wrong = sum(not _is_chat(json.loads(line)) for line in lines)
    few = f"; OpenAI takes no fewer than {_LEAST_ROWS} rows" if len(lines) < _LEAST_ROWS else ""
    return NamedCheck("OpenAI's format", wrong == 0, f"{len(lines) - wrong} of {len(lines)} rows are in it{few}")


def _is_chat(row: Any) -> bool:
    if not isinstance(row, dict) or set(row) != {"messages"} or not row["messages"]:
        return False
    turns = row["messages"]
    texts = all(set(t) == {"role", "content"} and t["role"] in _ROLES and isinstance(t["content"], str) for t in turns)
    return texts and turns[-1]["role"] == "assistant" and any(t["role"] == "user" for t in turns)


def _by_datasets(path: Path, shape: str, rows: int) -> NamedCheck:
    """Whether the `datasets` library reads as many rows, of one type."""
    from datasets import Dataset

    with tempfile.TemporaryDirectory() as scratch:
        read = Dataset.from_json(str(path), cache_dir=scratch)
        return NamedCheck("datasets", len(read) == rows, f"{len(read)} of {rows} rows, columns {read.column_names}")


# ---- what is told -------------------------------------------------------------------------------


def _notes(source: ExportSource, found: TrainRows) -> tuple[str, ...]:
    tokens = sorted(_tokens(row, found.count) for row in found.rows)
    over = ", ".join(f"{sum(n > limit for n in tokens):,} above {limit:,}" for limit in _LIMITS)
    notes = [
        f"{len(tokens):,} rows; tokens a row ({found.counted_by}): {tokens[0]:,} to {tokens[-1]:,}, median "
        f"{statistics.median(tokens):,.0f}, {sum(tokens):,} in all; {over}."
    ]
    if source.packed.solution.adapter is None:
        notes.append("The solution was not trained: these are train examples behind its instruction, without demos.")
    else:
        course = f"solutions/{source.packed.solution.name}/training/course.json"
        notes.append(f"All rows that the training could visit; {course} in the run folder says how many steps it took.")
    if found.taught:
        notes.append(f"{found.taught:,} of them were written or answered by a model, as the solution learnt them.")
    if found.left_out:
        notes.append(f"{found.left_out:,} train rows are left out, whose input stands in dev or the test as well.")
    return tuple(notes)


def _tokens(row: TrainingRow, count: Callable[[str], int]) -> int:
    """Of the whole row, the marks around turns estimated."""
    return count(row.answer) + sum(count(m.content) for m in row.messages) + _TURN * (len(row.messages) + 1)


def _export(name: str, about: str, shape: str, *, strict: bool = False) -> Export:
    return Export(name, about, partial(write, shape=shape, strict=strict))


OPENAI_JSONL = _export("openai-jsonl", "The training data for OpenAI's fine-tuning.", "messages", strict=True)
MESSAGES = _export("messages", "The training data as rows of messages, with ids.", "messages")
ALPACA = _export("alpaca", "The training data as rows of instruction, input and output.", "alpaca")
SHAREGPT = _export("sharegpt", "The training data as rows of conversations.", "sharegpt")

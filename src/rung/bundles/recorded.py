"""Dev examples with what a solution answered to them in its run: what an export, and the bundle itself, is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import DamagedRecord, RunError, came, may_pass
from rung.records import read_lines, write_lines
from rung.types import Example, Message, Prediction, Query

RECORDED = "parity.jsonl"
MOST = 100
"""Examples that a bundle holds at most."""


@dataclass(frozen=True)
class RecordedExample:
    """A dev example and the answer of the run. Examples of the test are never recorded.

    example: with its accepted answers. text, score, finish: as in Prediction. passages: ids of those that its
    prompt showed, the best first. error: how it breaks its constraint.
    """

    example: Example
    text: str
    score: float | None = None
    passages: tuple[str, ...] = ()
    error: str | None = None
    finish: str = "stop"

    @property
    def query(self) -> Query:
        return self.example.query


def recorded_of(
    dev: Sequence[Example], predictions: Sequence[Prediction], groups: dict[str, str], seed: int
) -> list[RecordedExample]:
    """A fixed sample of the dev examples that were answered. groups: id -> group, where examples share one.

    Rows that got no answer, or no score for a reason that may pass, are left out.
    """
    from rung.data.sampling import sample_of

    answered = {p.id: p for p in predictions if came(p.error) and not may_pass(p.metric_error)}
    found = []
    for e in sample_of([e for e in dev if e.id in answered], MOST, seed):
        p = answered[e.id]
        example = Example(
            e.id,
            e.input,
            e.output,
            e.references,
            group=groups.get(e.id),
            context=e.context,
            instruction=e.instruction,
            turns=e.turns,
        )
        found.append(RecordedExample(example, p.text, p.score, p.passages, p.error, p.finish))
    return found


def write_recorded(folder: Path, answers: Sequence[RecordedExample]) -> None:
    """parity.jsonl, one answer a line."""
    write_lines(folder / RECORDED, map(_record, answers))


def read_recorded(folder: Path) -> list[RecordedExample]:
    """The answers that a bundle holds; none where it was made without examples, or by an older version.

    Raises RunError for a file that cannot be read.
    """
    try:
        return [_answer(record) for record in read_lines(folder / RECORDED)]
    except (DamagedRecord, TypeError, AttributeError) as error:
        fact = error.fact if isinstance(error, DamagedRecord) else repr(error)
        raise RunError(f"{folder / RECORDED}: no recorded answers can be read ({fact}). Copy it again.") from None


def _record(answer: RecordedExample) -> dict[str, Any]:
    from rung.data.shapes.writing import query_row

    e = answer.example
    said: dict[str, Any] = {"id": e.id, **query_row(e.query)}
    if e.group is not None:
        said["group"] = e.group
    said |= {"output": e.output, "references": list(e.references), "text": answer.text, "score": answer.score}
    said["passages"] = list(answer.passages)
    if answer.error is not None:
        said["error"] = answer.error
    return said | {"finish": answer.finish}


def _answer(record: dict[str, Any]) -> RecordedExample:
    example = Example(
        record["id"],
        record["input"],
        record["output"],
        tuple(record["references"]),
        group=record.get("group"),
        context=record.get("context"),
        row=f"{RECORDED}, {record['id']}",
        instruction=record.get("instruction"),
        turns=tuple(Message(turn["role"], turn["content"]) for turn in record.get("turns", ())),
    )
    passages, finish = tuple(record.get("passages", ())), record.get("finish", "stop")
    return RecordedExample(example, record["text"], record.get("score"), passages, record.get("error"), finish)

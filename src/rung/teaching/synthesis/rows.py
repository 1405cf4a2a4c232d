"""A synthetic row: an example with its origin, as it lies in a file and as it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rung.data.shapes.values import FOUND_BY
from rung.types import Example, Message


@dataclass(frozen=True)
class SyntheticRow:
    """example: to train on; its id is that of the row. origin: how it came to be.

    origin holds kind, teacher, prompt (a hash; the text stands in prompts.jsonl), from (ids of the train rows or the
    passages that it was written from), votes (answer -> samples), asked (number of samples), usd.
    """

    example: Example
    origin: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.origin["kind"])

    @property
    def record(self) -> dict[str, Any]:
        """As its line in a file holds it, not reviewed."""
        example = self.example
        more = {
            "references": list(example.references) if len(example.references) > 1 else None,
            "context": example.context,
            "instruction": example.instruction,
            "turns": [asdict(turn) for turn in example.turns] or None,
            "gold_ids": list(example.gold_ids) or None,
            "gold_by": FOUND_BY if example.gold_found else None,
        }
        found = {key: value for key, value in more.items() if value is not None}
        shown = {"id": example.id, "input": example.input, "output": example.output, **found}
        return {**shown, "origin": dict(self.origin), "review": None}


def example_of(record: Mapping[str, Any]) -> Example:
    """The example that a row's `record` holds."""
    return Example(
        record["id"],
        record["input"],
        record["output"],
        tuple(record.get("references") or (record["output"],)),
        context=record.get("context"),
        gold_ids=tuple(record.get("gold_ids") or ()),
        row=f"synthetic {record['id']}",
        instruction=record.get("instruction"),
        turns=tuple(Message(**turn) for turn in record.get("turns") or ()),
        gold_found=record.get("gold_by") == FOUND_BY,
    )

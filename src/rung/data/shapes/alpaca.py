"""Alpaca's rows: an instruction, an input that may be empty, and an output. Dolly's and LLaMA-Factory's names are read.

Where the input is empty everywhere, the instruction is the input. Where instructions differ, each is its row's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.shapes.seam import BY_STRUCTURE, Claim, RowShape, Sample, system_column
from rung.data.shapes.writing import beside, turn
from rung.types import Example


def _recognise(sample: Sample) -> Sequence[Claim]:
    if {"input", "output", "instruction"} & set(sample.chosen):
        return ()
    instruction, source = sample.column("instruction"), sample.column("input")
    answer = sample.column("output", "response")
    if answer is None and source is not None:
        answer = sample.column("target", "completion", "answer", "label")
    if instruction is None or answer is None:
        return ()
    fields: dict[str, str | tuple[str, ...]] = {"input": instruction, "output": answer}
    if source is None or sample.empty(source):
        empty = "" if source is None else f'; "{source}" is empty everywhere'
        why = f'the column "{instruction}" is the input{empty}'
    else:
        system = system_column(sample)
        fields |= {"input": source, "instruction": instruction if system is None else (system, instruction)}
        why = f'the columns "{instruction}", "{source}" and "{answer}", by their names'
    if history := sample.column("history"):
        fields["turns"] = history
    return [Claim(BY_STRUCTURE, fields, why)]


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    for e in examples:
        asked = (e.instruction, e.input) if e.instruction else (e.input, "")
        row: dict[str, object] = {"instruction": asked[0], "input": asked[1], "output": e.output}
        if e.turns:
            row["history"] = _history(e)
        yield {**row, **beside(e)}


def _history(example: Example) -> list[object]:
    """Pairs of question and answer, as LLaMA-Factory has them; other orders of turns as messages."""
    turns = example.turns
    roles = [t.role for t in turns]
    if roles == ["user", "assistant"] * (len(roles) // 2):
        return [[turns[i].content, turns[i + 1].content] for i in range(0, len(turns), 2)]
    return [turn(t) for t in turns]


SHAPE = RowShape(_recognise, _rows)

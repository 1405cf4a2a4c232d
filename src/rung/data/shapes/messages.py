"""OpenAI's chat rows: {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}.

The last turn of the assistant is the answer, the user's turn before it the input, those before are earlier turns, and
the system's turns are what the row asks for. A call of a tool is an answer in JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.shapes.conversation import is_conversation, messages_of, split_at_answer
from rung.data.shapes.seam import BY_NAME, BY_STRUCTURE, Claim, RowShape, Sample
from rung.data.shapes.writing import asked, beside, turn
from rung.types import Example, Message

TOOLS = ("tools", "functions")


def conversations(sample: Sample) -> list[str]:
    """The columns whose values are conversations with an answer in them."""
    columns = [str(sample.chosen["input"])] if "input" in sample.chosen else list(sample.free)
    return [c for c in columns if sample.mostly(c, is_conversation) and sample.mostly(c, _answered)]


def claim(sample: Sample, column: str, sure: int) -> Claim:
    """That the rows are conversations in a column, with definitions of tools where a column holds them."""
    fields: dict[str, str | tuple[str, ...]] = {"input": column}
    why = f'the column "{column}" holds conversations; the last turn of the assistant is the answer'
    if tools := sample.column(*TOOLS):
        fields["tools"] = tools
        why += f', and the tools of "{tools}" stand in the instruction'
    return Claim(sure, fields, why)


def _recognise(sample: Sample) -> Sequence[Claim]:
    if "output" in sample.chosen:
        return ()
    found = [c for c in conversations(sample) if not sample.mostly(c, _sharegpt)]
    named = [c for c in found if c in (sample.by_key.get("messages"), sample.chosen.get("input"))]
    return [claim(sample, c, BY_STRUCTURE if c in named or len(found) == 1 else BY_NAME) for c in named or found]


def _sharegpt(value: object) -> bool:
    return '"from"' in value if isinstance(value, str) else isinstance(value, list) and "from" in value[0]


def _answered(value: object) -> bool:
    try:
        talk = split_at_answer(messages_of(value))
        return talk.answer is not None and talk.input is not None
    except ValueError:
        return True  # it is one, and its row is told when it is read


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    for e in examples:
        yield {"messages": [turn(m) for m in (*asked(e), Message("assistant", e.output))], **beside(e)}


SHAPE = RowShape(_recognise, _rows)

"""OpenAI's chat rows: {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}.

The last turn of the assistant is the answer, the user's turn before it the input, those before are earlier turns, and
the system's turns are what the row asks for. A call of a tool is an answer in JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.shapes.conversation import is_conversation, messages_of, split_at_answer, transcript, unlearnt_of
from rung.data.shapes.seam import BY_GUESS, BY_NAME, BY_STRUCTURE, Claim, RowShape, Sample, key_of
from rung.data.shapes.values import json_list
from rung.data.shapes.writing import asked, beside, turn
from rung.types import Example, Message


def conversations(sample: Sample) -> list[str]:
    """The columns whose values are conversations with an answer in them."""
    return [c for c in _columns(sample) if sample.mostly(c, is_conversation) and sample.mostly(c, _answered)]


def claim(column: str, sure: int) -> Claim:
    """That the rows are conversations in a column."""
    why = f'the column "{column}" holds conversations; the last turn of the assistant is the answer'
    return Claim(sure, {"input": column}, why)


def says_from(value: object) -> bool:
    """Whether a conversation names speakers as ShareGPT does."""
    first = next(iter(json_list(value) or ()), None)
    return isinstance(first, dict) and "from" in first


_BEFORE_AN_ANSWER = ("turns", "history", "prompt", "input", "question")


def _columns(sample: Sample) -> list[str]:
    """The columns that may hold whole conversations; beside a column of answers, one may hold what was said before."""
    if "input" in sample.chosen:
        return [str(sample.chosen["input"])]
    if sample.column("output", "completion", "response", "chosen", "answer") is None:
        return list(sample.free)
    return [c for c in sample.free if key_of(c) not in _BEFORE_AN_ANSWER]


def _recognise(sample: Sample) -> Sequence[Claim]:
    if "output" in sample.chosen:
        return ()
    everything = conversations(sample)
    if not everything:  # texts that say before each turn who speaks
        texts = (c for c in _columns(sample) if sample.mostly(c, lambda value: transcript(value) is not None))
        return [claim(c, BY_GUESS) for c in texts]
    found = [c for c in everything if not sample.mostly(c, says_from)]
    named = [c for c in found if c in (sample.by_key.get("messages"), sample.chosen.get("input"))]
    return [claim(c, BY_STRUCTURE if c in named or len(found) == 1 else BY_NAME) for c in named or found]


def _answered(value: object) -> bool:
    try:
        talk = split_at_answer(messages_of(value), unlearnt_of(value))
        return talk.answer is not None and talk.input is not None
    except ValueError:
        return True  # it is one, and its row is told when it is read


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    for e in examples:
        yield {"messages": [turn(m) for m in (*asked(e), Message("assistant", e.output))], **beside(e)}


SHAPE = RowShape(_recognise, _rows)

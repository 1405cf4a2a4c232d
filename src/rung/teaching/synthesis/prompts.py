"""The requests by which a teacher writes new inputs, and what is read from its replies.

Knows words, nothing of votes and filters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from rung.text import whole
from rung.types import Constraint, Document, Message, Query

WRITER = (
    "You write inputs for a task, as the people who use it would write them: complete, natural and different from each "
    "other. You write no answers, no explanations and no placeholders."
)
"""The system turn of every request for new inputs."""

STYLES = (
    "",
    " Make them shorter than most of these.",
    " Make them more detailed than most of these.",
    " Use other words and other situations than these.",
    " Write them as somebody in a hurry would.",
)
"""Behind the order, in turn, so that requests for the same kind of inputs differ."""

ROOM = 40
"""Tokens of a reply beyond its inputs: braces, quotes and the key."""

_REPLY = 'Reply with JSON only: {"inputs": ["…", "…"]}.'
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LINE = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*(.+?)\s*$", re.MULTILINE)


def reply_form(count: int) -> Constraint:
    """What a reply with that many inputs looks like."""
    inputs = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": count}
    form = {"type": "object", "properties": {"inputs": inputs}, "required": ["inputs"], "additionalProperties": False}
    return Constraint("json_schema", form)


def new_inputs(
    instruction: str, base: Query | None, shown: Sequence[str], answer: str | None, count: int, style: str
) -> tuple[Message, ...]:
    """Asks for inputs like those shown, or with that right answer. base: whose context the inputs share."""
    what = f"inputs whose right answer is {answer}" if answer is not None else "inputs of the same kind"
    order = f"Write {count} new {what}. They must not repeat what is shown.{style}"
    return _turns(instruction, _shared(base), _listed("Inputs", shown, answer), order)


def other_words(instruction: str, row: Query, answer: str | None, count: int, style: str) -> tuple[Message, ...]:
    """Asks for the input of a row in other words. answer: where it is short enough to be said."""
    kept = f"the right answer, {answer}, stays the same" if answer is not None else "its right answer stays the same"
    order = (
        f"Write this input in {count} other ways, each in other words and with another structure. Its meaning, all "
        f"names and numbers stay, and {kept}.{style}"
    )
    return _turns(instruction, _shared(row), f"Input:\n{row.input}", order)


def questions(
    instruction: str, passage: Document, shown: Sequence[str], count: int, *, answered: bool
) -> tuple[Message, ...]:
    """Asks for inputs that a passage answers, or that it seems to answer and does not."""
    title = f"{passage.title}\n" if passage.title else ""
    if answered:
        order = (
            f"Write {count} new inputs that this passage answers by itself. Each must be understood by somebody who "
            "does not see the passage, so name what it is about."
        )
    else:
        order = (
            f"Write {count} new inputs about the same subject that sound as if this passage answered them, but whose "
            "answer it does not hold. Name what they are about."
        )
    return _turns(instruction, f"Passage:\n{title}{passage.text}", _listed("Inputs of the task", shown, None), order)


def inputs_in(reply: str) -> list[str]:
    """The inputs of a reply: of its JSON, be it cut off, or else the items of its list. Empty where there are none."""
    return [found for text in _texts_in(reply) if (found := whole(text).strip())]


def _texts_in(reply: str) -> list[str]:
    text = reply.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _loosely(text)
    if isinstance(value, dict):
        value = next((found for found in value.values() if isinstance(found, list)), [])
    if not isinstance(value, list):
        return []
    texts = [next(iter(item.values()), "") if isinstance(item, dict) else item for item in value]
    return [text for text in texts if isinstance(text, str)]


def _loosely(text: str) -> list[str]:
    start = text.find("[")
    if start >= 0:
        found = []
        for string in _STRING.finditer(text, start):
            try:
                found.append(str(json.loads(f'"{string[1]}"', strict=False)))
            except ValueError:
                continue
        return found
    return [item[1].strip("\"“”'") for item in _LINE.finditer(text)]


def _turns(instruction: str, *parts: str) -> tuple[Message, ...]:
    said = "\n\n".join(part for part in (f"The task:\n{instruction}", *parts, _REPLY) if part)
    return (Message("system", WRITER), Message("user", said))


def _shared(base: Query | None) -> str:
    """What the inputs have in common: the context, what the row asks for, earlier turns."""
    if base is None:
        return ""
    turns = "\n".join(f"{turn.role}: {turn.content}" for turn in base.turns)
    parts = (
        f"They are about this text:\n{base.context}" if base.context else "",
        f"They all ask for this:\n{base.instruction}" if base.instruction else "",
        f"They follow this conversation:\n{turns}" if turns else "",
    )
    return "\n\n".join(part for part in parts if part)


def _listed(what: str, shown: Sequence[str], answer: str | None) -> str:
    if not shown:
        return ""
    head = f"{what} whose right answer is {answer}:" if answer is not None else f"{what}:"
    return "\n".join([head, *(f"{number}. {text}" for number, text in enumerate(shown, 1))])

"""What rows of every shape have in common when examples are written: turns, and the columns beside the shape's own."""

from __future__ import annotations

import re

from rung.data.shapes.values import FOUND_BY
from rung.types import Example, Message, Query

_NO_ID = re.compile(r"(line|item|row)-\d+(\.\d+)?$")


def turn(message: Message) -> dict[str, object]:
    """A turn as OpenAI writes it."""
    return {"role": message.role, "content": message.content}


def query_row(query: Query) -> dict[str, object]:
    """input, and context, instruction and turns where the query has them: columns that rung reads as they are."""
    found: dict[str, object] = {"input": query.input}
    if query.context is not None:
        found["context"] = query.context
    if query.instruction is not None:
        found["instruction"] = query.instruction
    if query.turns:
        found["turns"] = [turn(message) for message in query.turns]
    return found


def asked(example: Example) -> list[Message]:
    """All turns of an example but the answer: what the row asks for as the system's, earlier turns, the input."""
    system = [Message("system", example.instruction)] if example.instruction else []
    return [*system, *example.turns, Message("user", example.input)]


def beside(example: Example) -> dict[str, object]:
    """id, group, context, gold_ids (with gold_by) and references, where the example has them. An id that names a line
    is not one."""
    found: dict[str, object] = {}
    from_place = _NO_ID.search(example.id)
    if from_place is None or not example.row.endswith(from_place[0].replace("-", " ")):
        found["id"] = example.id
    if example.group is not None:
        found["group"] = example.group
    if example.context is not None:
        found["context"] = example.context
    if example.gold_ids:
        found["gold_ids"] = list(example.gold_ids)
        if example.gold_found:
            found["gold_by"] = FOUND_BY
    if len(example.references) > 1:
        found["references"] = list(example.references)
    return found

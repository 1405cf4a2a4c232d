"""A conversation of a client as the input of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rung.types import Message, Query


def query_of(messages: Sequence[Message], instructions: Sequence[str], *, context: str | None = None) -> Query | None:
    """The last user turn, with the turns before it; system turns are the instruction of the input.

    A system turn that one of `instructions` (of the task and the solution) holds says nothing new, and is left out, as
    when examples are read. None where the last turn is not a user's.
    """
    turns = [m for m in messages if m.role != "system"]
    if not turns or turns[-1].role != "user":
        return None
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    query = Query("0", turns[-1].content, context, system or None, tuple(turns[:-1]))
    return _without_what_is_said(query, instructions)


def _without_what_is_said(query: Query, instructions: Sequence[str]) -> Query:
    from rung.text import visible

    own = query.instruction
    said = own is not None and any(visible(own) in visible(instruction) for instruction in instructions)
    return replace(query, instruction=None) if said else query

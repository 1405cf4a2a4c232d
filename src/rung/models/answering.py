"""Rows of a local model from their prompts to their answers, with the thoughts that some models write first.

A thought is bounded, counted as written and cut out; a grammar holds behind it only. Knows jobs and the chat format;
knows nothing of requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from rung.engine.decode import Answered, Job
from rung.models.chat_template import ChatFormat
from rung.models.thinking import THOUGHT_TOKENS, Thought

Decode = Callable[[Sequence[Job], Collection[int]], Iterator[Answered]]
"""As `engine.decode.decode` of one engine."""


@dataclass
class AnswerRow:
    """One prompt on its way to an answer.

    job: what the engine is asked next; its prompt grows by a thought. thought: to be written before the answer. spelt:
    whether a thought may be spelt as ordinary text. ids: the answer; None where memory did not suffice. written: tokens
    so far, thoughts included. seconds: in its batches.
    """

    job: Job
    thought: Thought | None = None
    spelt: bool = True
    ids: list[int] | None = None
    written: int = 0
    seconds: float = 0.0


def write_answers(rows: Sequence[AnswerRow], chat: ChatFormat, context_length: int, decode: Decode) -> None:
    """Fills in answers. Where one turns out to begin with a thought, both get room of their own."""
    going = _think([row for row in rows if row.thought is not None], chat, context_length, decode)
    _write([row for row in rows if row.thought is None] + going, chat.stop_ids, decode)
    thinking, closed = list[AnswerRow](), list[AnswerRow]()
    for row in rows:
        begun = chat.begun_thought(row.ids, spelt=row.spelt) if row.ids else None
        if begun is None or not row.ids:
            continue
        is_closed, has_ended = chat.is_closed(begun, row.ids), row.ids[-1] in chat.stop_ids
        kept = chat.closed_thought(begun, row.ids) if is_closed else row.ids[:-1] if has_ended else row.ids
        closing = 0 if is_closed else len(chat.closed_thought(begun, []))
        room = context_length - len(row.job.prompt) - len(kept) - closing
        if (is_closed and has_ended) or room < 1:
            continue
        row.thought = begun
        row.job = replace(row.job, prompt=[*row.job.prompt, *kept], most=min(row.job.most, room))
        (closed if is_closed else thinking).append(row)
    _write(closed + _think(thinking, chat, context_length, decode), chat.stop_ids, decode)


def _think(rows: Sequence[AnswerRow], chat: ChatFormat, context_length: int, decode: Decode) -> list[AnswerRow]:
    """Adds a closed thought to each prompt; returns the rows for which memory sufficed. No room: it is closed empty."""
    going: list[AnswerRow] = []
    for thought in dict.fromkeys(row.thought for row in rows):
        assert thought is not None
        closing = len(chat.closed_thought(thought, []))
        asked: list[tuple[AnswerRow, Job]] = []
        thoughts: list[tuple[AnswerRow, list[int] | None]] = []
        for row in rows:
            if row.thought == thought:
                room = context_length - len(row.job.prompt) - closing - row.job.most
                if room > 0:
                    asked.append((row, replace(row.job, most=min(room, THOUGHT_TOKENS), matcher=None)))
                else:
                    thoughts.append((row, []))
        thoughts += _decoded(asked, chat.thought_stops(thought), decode)
        for row, ids in thoughts:
            if ids is None:
                row.ids = None
            else:
                row.job = replace(row.job, prompt=[*row.job.prompt, *chat.closed_thought(thought, ids)])
                going.append(row)
    return going


def _write(rows: Sequence[AnswerRow], stop_ids: Collection[int], decode: Decode) -> None:
    for row, ids in _decoded([(row, row.job) for row in rows], stop_ids, decode):
        row.ids = ids


def _decoded(
    asked: Sequence[tuple[AnswerRow, Job]], stop_ids: Collection[int], decode: Decode
) -> Iterator[tuple[AnswerRow, list[int] | None]]:
    """The rows with what they wrote, as batches are done; tokens and seconds are added to them."""
    if not asked:
        return
    started = time.perf_counter()
    for answers in decode([job for _, job in asked], stop_ids):  # ids are on the CPU: the device is done
        taken = time.perf_counter() - started
        for place, ids in answers:
            row = asked[place][0]
            row.seconds += taken
            row.written += len(ids or ())
            yield row, ids
        started = time.perf_counter()

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

    job: what the engine is asked next; its prompt grows by a thought. thought: to be written before the answer. ids:
    the answer; None where memory did not suffice. written: tokens so far, thoughts included. seconds: in its batches.
    """

    job: Job
    thought: Thought | None = None
    ids: list[int] | None = None
    written: int = 0
    seconds: float = 0.0


def write_answers(rows: Sequence[AnswerRow], chat: ChatFormat, context_length: int, decode: Decode) -> None:
    """Fills in answers. An answer that turns out to be the beginning of a thought is continued as one."""
    going = _think([row for row in rows if row.thought is not None], chat, context_length, decode)
    _write([row for row in rows if row.thought is None] + going, chat.stop_ids, decode)
    late = []
    for row in rows:
        if row.ids is not None and row.job.matcher is None and (begun := chat.unfinished_thought(row.ids)):
            kept = row.ids[:-1] if row.ids[-1] in chat.stop_ids else row.ids
            row.thought, row.job = begun, replace(row.job, prompt=[*row.job.prompt, *kept])
            late.append(row)
    _write(_think(late, chat, context_length, decode), chat.stop_ids, decode)


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

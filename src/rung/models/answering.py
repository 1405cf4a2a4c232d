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
    """One prompt on its way to an answer, step by step: `next_step` says what the engine is asked, `heard` takes it in.

    job: the answer that is asked for; its prompt grows by a thought. thought: to be written before the answer. spelt:
    whether a thought may be spelt as ordinary text. ids: the answer; None where memory did not suffice. written: tokens
    so far, thoughts included. seconds: in its batches.
    """

    job: Job
    thought: Thought | None = None
    spelt: bool = True
    ids: list[int] | None = None
    written: int = 0
    seconds: float = 0.0
    answers_left: int = 2  # one that turns out to begin with a thought is written again behind it

    def next_step(self, chat: ChatFormat, context_length: int) -> AnswerStep | None:
        """What comes next: a thought, an answer, or nothing more. A thought without room is closed empty."""
        if self.thought is not None:
            closing = len(chat.closed_thought(self.thought, []))
            room = context_length - len(self.job.prompt) - closing - self.job.most
            if room > 0:
                job = replace(self.job, prompt=self.job.prompt, most=min(room, THOUGHT_TOKENS), matcher=None)
                return AnswerStep(job, chat.thought_stops(self.thought), thinks=True)
            self._close(self.thought, [], chat)
        return AnswerStep(self.job, chat.stop_ids, thinks=False) if self.answers_left else None

    def heard(self, step: AnswerStep, ids: list[int] | None, chat: ChatFormat, context_length: int) -> None:
        """ids: what the engine wrote; None where memory did not suffice."""
        self.written += len(ids or ())
        if ids is None:
            self.ids, self.thought, self.answers_left = None, None, 0
        elif step.thinks:
            assert self.thought is not None
            self._close(self.thought, ids, chat)
        else:
            self.ids = ids
            self.answers_left -= 1
            self._look_for_thought(ids, chat, context_length)

    def _look_for_thought(self, ids: list[int], chat: ChatFormat, context_length: int) -> None:
        """Where the answer turns out to begin with a thought, both get room of their own."""
        begun = chat.begun_thought(ids, spelt=self.spelt) if ids and self.answers_left else None
        self.answers_left = self.answers_left if begun is not None else 0
        if begun is None:
            return
        is_closed, has_ended = chat.is_closed(begun, ids), ids[-1] in chat.stop_ids
        kept = chat.closed_thought(begun, ids) if is_closed else ids[:-1] if has_ended else ids
        closing = 0 if is_closed else len(chat.closed_thought(begun, []))
        room = context_length - len(self.job.prompt) - len(kept) - closing
        if (is_closed and has_ended) or room < 1:
            self.answers_left = 0
            return
        self.thought = None if is_closed else begun
        self.job = replace(self.job, prompt=[*self.job.prompt, *kept], most=min(self.job.most, room))

    def _close(self, thought: Thought, ids: list[int], chat: ChatFormat) -> None:
        self.job = replace(self.job, prompt=[*self.job.prompt, *chat.closed_thought(thought, ids)])
        self.thought = None


@dataclass(frozen=True)
class AnswerStep:
    """What the engine is asked next. thinks: a thought, which is no part of the answer."""

    job: Job
    stop_ids: frozenset[int]
    thinks: bool


def write_answers(rows: Sequence[AnswerRow], chat: ChatFormat, context_length: int, decode: Decode) -> None:
    """Fills in answers, step by step: those that end by the same tokens together."""
    going = list(rows)
    while going:
        steps = [(row, step) for row in going if (step := row.next_step(chat, context_length)) is not None]
        # Thoughts first: an answer behind one is then written together with those of the others.
        thinking = [(row, step) for row, step in steps if step.thinks]
        now = [(row, step) for row, step in thinking if step.stop_ids == thinking[0][1].stop_ids] or steps
        _decode(now, chat, context_length, decode)
        going = [row for row, _ in steps]


def _decode(
    asked: Sequence[tuple[AnswerRow, AnswerStep]], chat: ChatFormat, context_length: int, decode: Decode
) -> None:
    """One step of these rows; they hear what was written as batches are done."""
    if not asked:
        return
    started = time.perf_counter()
    for answers in decode([step.job for _, step in asked], asked[0][1].stop_ids):  # ids are on the CPU: all is done
        taken = time.perf_counter() - started
        for place, ids in answers:
            row, step = asked[place]
            row.seconds += taken
            row.heard(step, ids, chat, context_length)
        started = time.perf_counter()

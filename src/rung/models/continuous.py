"""The local engine as an Answerer: one thread computes, whoever asks is told of each token.

Requests join between two tokens of the others (`engine.continuous`). What is not about the network is done in the
threads of those who ask: templates, grammars, reading adapters.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rung.engine.continuous import Running
from rung.engine.live_rows import LiveRow
from rung.engine.memory import free_bytes
from rung.engine.tree_engine import TreeEngine
from rung.errors import Busy, Unanswerable, came, fault_text
from rung.models.answering import AnswerRow, AnswerStep
from rung.models.incremental_text import AnswerText
from rung.models.local import LocalModel
from rung.models.request_rows import held_to
from rung.models.streaming import (
    Ask,
    Hearer,
    Load,
    Piece,
    Token,
    WrittenToken,
    add_tokens,
    no_answer,
    tell_whole,
    whole_answers,
)
from rung.types import Generation, Request, TrainingRow

_Result = TypeVar("_Result")

MOST_LOGPROBS = 20  # tokens beside the one that was chosen

_log = logging.getLogger(__name__)
_MOST_CACHE = 4 << 30  # bytes of the rows' keys and values, and as many of kept prefixes
_PREFIX_CALLS = 1_024  # a conversation that goes on finds what was read of it, though many others came in between
_NOBODY, _ENDS = "nobody listens any more", "the server ends"


@dataclass(eq=False)
class _Going:
    """A request on its way; the Ticket of who asked. row: what the engine answers now. prompt, cached: tokens of the
    request, and of these that were computed before. cancelled: nobody listens."""

    ask: Ask
    hears: Hearer
    asked: AnswerRow
    text: AnswerText
    step: AnswerStep
    row: LiveRow
    prompt: int
    begun: bool = False
    cancelled: bool = False
    cached: int = 0
    told_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def cancel(self) -> None:
        self.cancelled = True


class Continuous:
    """An Answerer over a local model on the tree path. slots: adapters of one pass. most_waiting: beyond them `submit`
    refuses."""

    def __init__(self, model: LocalModel, *, slots: int = 8, most_waiting: int = 256) -> None:
        engine = model.engine
        assert isinstance(engine, TreeEngine)
        self.model = model
        self._engine, self._slots, self._most_waiting = engine, slots, most_waiting
        room = min(_MOST_CACHE, free_bytes(engine.device) // 6)
        had = engine.limits  # upper bounds; what is free is asked when rows join
        engine.limits = replace(
            had,
            cache_bytes=max(room, had.cache_bytes),
            prefix_bytes=max(room, had.prefix_bytes),
            prefix_calls=_PREFIX_CALLS,
        )
        self._running = Running(engine, slots=slots)
        self._new: deque[_Going] = deque()
        self._going: dict[LiveRow, _Going] = {}
        self._held: Counter[str] = Counter()
        self._released: deque[str] = deque()
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()  # of other threads, between two tokens
        self._tokens = [0, 0, 0]  # in, cached, out
        self._changed = threading.Condition()
        self._prompts = threading.Lock()  # templates and grammars are not made for several threads
        self._closed, self._until = False, float("inf")
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    # ---- from any thread --------------------------------------------------------------------

    def submit(self, ask: Ask, hears: Hearer) -> _Going | _Over:
        if ask.logprobs is not None and ask.logprobs > MOST_LOGPROBS:
            raise Unanswerable(f"at most {MOST_LOGPROBS} log-probabilities are told at each place.", "top_logprobs")
        return self._put(ask, hears, refuse=True)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Whole answers, in order. They wait among the others, and are not refused for their number."""
        return whole_answers(requests, partial(self._put, refuse=False))

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        with self._prompts:
            return self.model.too_long(rows)

    def row_losses(self, rows: Sequence[TrainingRow], adapter: Path | None) -> list[float]:
        """As the model's, computed between two tokens of the answers."""

        def judged() -> list[float]:
            with self._prompts:
                return self.model.row_losses(rows, adapter)

        return self._in_engine(judged)

    def check_adapters(self) -> None:
        """The check that the first adapter would have to wait for; it takes seconds. Raises ModelError."""
        if self._engine.adapters.on_first_use is not None:
            self._in_engine(self._engine.adapters.check)

    def hold(self, adapter: Path) -> None:
        self.check_adapters()
        self.model.check_fits(adapter, self._in_engine)
        with self._changed:
            self._held[str(adapter)] += 1

    def release(self, adapter: Path) -> None:
        folder = str(adapter)
        with self._changed:
            self._held[folder] -= 1
            if self._held[folder] <= 0:
                del self._held[folder]
                self._released.append(folder)
                self._changed.notify()

    def load(self) -> Load:
        running = self._running.running
        waiting = max(0, len(self._going) - running) + len(self._new)
        return Load(running, waiting, len(self._held), *self._tokens)

    def close(self, grace_s: float = 0.0) -> None:
        with self._changed:
            self._closed, self._until = True, time.monotonic() + grace_s
            self._changed.notify()
        self._thread.join(grace_s + 30.0)

    def _in_engine(self, work: Callable[[], _Result]) -> _Result:
        """What this work returns, which is done in the engine's thread between two tokens of the answers."""
        found: Future[_Result] = Future()
        with self._changed:
            if self._closed:
                raise Busy("the server is about to end. Try again later.", 5.0)
            self._errands.append((work, found))
            self._changed.notify()
        return found.result()

    def _put(self, ask: Ask, hears: Hearer, *, refuse: bool) -> _Going | _Over:
        with self._prompts:
            going = self._going_of(ask, hears)
        if isinstance(going, Generation):
            tell_whole(hears, going)
            return _Over()
        with self._changed:
            if self._closed:
                raise Busy("the server is about to end. Try again later.", 5.0)
            if refuse and self.load().waiting >= self._most_waiting:
                raise Busy(f"{self._most_waiting:,} requests wait already. Try again later.")
            self._new.append(going)
            self._changed.notify()
        return going

    def _going_of(self, ask: Ask, hears: Hearer) -> _Going | Generation:
        """The request as its first step, or the error that it ends with."""
        request, chat = ask.request, self.model.chat
        asked = self.model.asked(request) if ask.text is None else self.model.continued(ask.text, request)
        if isinstance(asked, Generation):
            return asked
        asked.job = replace(asked.job, top_p=ask.top_p)
        prompt = len(asked.job.prompt)
        step = asked.next_step(chat, self.model.context_length)
        assert step is not None  # an answer has yet to be written
        text = AnswerText(chat, stop=ask.stop, spelt=asked.spelt, raw=ask.text is not None)
        return _Going(ask, hears, asked, text, step, _row(ask, step), prompt)

    # ---- in the engine's thread -------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._new or self._released or self._errands or self._going or self._closed):
                    self._changed.wait()
                new, self._new = self._new, deque()
                for going in new:
                    self._going[going.row] = going
                released, self._released = self._released, deque()
                errands, self._errands = self._errands, deque()
                ends = self._closed and (not self._going or time.monotonic() > self._until)
            for work, found in errands:
                _do(work, found)
            if ends:
                self._let_go()
                self._end_all(_ENDS)
                return
            try:
                for folder in released:
                    self._running.forget(folder)
                    self._engine.forget_adapter(folder)
                for going in new:
                    self._running.add(going.row)
                self._round()
            except Exception as error:  # whoever asks next must still be answered
                _log.exception("the engine failed; what it was answering ends with this error")
                self._let_go()
                self._running = Running(self._engine, slots=self._slots)
                self._end_all(fault_text(error))

    def _let_go(self) -> None:
        try:
            self._running.close()
        except Exception:  # a card that has failed may refuse this, too; the thread must live on
            _log.exception("what was recorded could not be freed")

    def _round(self) -> None:
        for going in [going for going in self._going.values() if going.cancelled]:
            going.row.dropped = True
            self._end(going, no_answer(_NOBODY))
        for row in self._running.admit():
            self._row_ended(row)
        for row in self._running.choose():
            self._tell(row)
        for row in self._running.advance():
            self._row_ended(row)

    def _tell(self, row: LiveRow) -> None:
        """Tells of a row's new tokens."""
        going = self._going.get(row)
        if going is None:
            return
        if not going.begun:
            going.begun, going.cached = True, min(row.cached, going.prompt)
            going.hears.begun(going.prompt, going.cached)
        if not going.step.thinks:
            new = row.answer[going.told_tokens :]
            going.told_tokens = len(row.answer)
            written = new[:-1] if new and new[-1] in row.stop_ids else new
            text, tokens = going.text.add(written), self._written_tokens(row, len(new), len(written))
            if text or tokens:
                going.hears.piece(Piece(text, tokens))
        if row.ended or going.text.stopped:
            self._row_ended(row)

    def _written_tokens(self, row: LiveRow, new: int, written: int) -> tuple[WrittenToken, ...]:
        """The newest tokens with their log-probabilities, where they are told; an end token is none of the text."""
        if row.logprobs is None or not written:
            return ()
        told = row.chosen[-new:][:written]
        return tuple(
            WrittenToken(*self._token(c.id, c.logprob), tuple(Token(*self._token(*pair)) for pair in c.top))
            for c in told
        )

    def _token(self, id_: int, logprob: float) -> tuple[str, bytes, float]:
        chat = self.model.chat
        return chat.decode_part([id_]), chat.bytes_of(id_), logprob

    def _row_ended(self, row: LiveRow) -> None:
        """A step of a request is over: the next one begins, or its answer is whole."""
        going = self._going.pop(row, None)
        if going is None:
            return
        row.dropped = row.dropped or not row.ended  # a stop text was written
        if row.fault:
            self._end(going, no_answer(row.fault.replace(str(row.job.adapter), Path(str(row.job.adapter)).name)))
            return
        asked, chat = going.asked, self.model.chat
        asked.heard(going.step, None if row.failed else row.answer, chat, self.model.context_length)
        step = None if going.text.stopped else asked.next_step(chat, self.model.context_length)
        if step is not None:
            going.step, going.row, going.told_tokens = step, _row(going.ask, step), 0
            self._going[going.row] = going
            self._running.add(going.row)
            return
        asked.seconds = time.perf_counter() - going.started
        self._end(going, self._whole(going))

    def _whole(self, going: _Going) -> Generation:
        generation = self.model.generation(going.asked, going.prompt, raw=going.ask.text is not None)
        cut = going.text.cut(generation.text)
        if len(cut) < len(generation.text):
            generation = replace(generation, text=cut, finish="stop")
        return held_to(replace(generation, tokens_cached=going.cached), going.ask.request.constraint)

    def _end(self, going: _Going, generation: Generation) -> None:
        self._going.pop(going.row, None)
        add_tokens(self._tokens, generation)
        if not going.begun and came(generation.error):
            going.hears.begun(generation.tokens_in, generation.tokens_cached)
        if rest := going.text.finish(generation.text):
            going.hears.piece(Piece(rest))
        going.hears.done(generation)

    def _end_all(self, why: str) -> None:
        for going in list(self._going.values()):
            try:
                self._end(going, no_answer(why))
            except Exception:  # of who asked: the engine must live on
                _log.exception("an answer's end could not be told")
        self._going.clear()


def _do(work: Callable[[], _Result], found: Future[_Result]) -> None:
    try:
        found.set_result(work())
    except BaseException as error:  # of this work; whoever waits for it hears of it
        found.set_exception(error)


class _Over:
    """The Ticket of what is answered already."""

    def cancel(self) -> None: ...


def _row(ask: Ask, step: AnswerStep) -> LiveRow:
    return LiveRow(step.job, step.stop_ids, None if step.thinks else ask.logprobs)

"""vLLM as the engine behind rung: prompts, grammars and texts are rung's own, vLLM computes the tokens between.

Prompts go out as the token ids that the bundle was trained and tested with, and answers come back as ids, so that an
answer differs from the local engine's only by what rounding does. Adapters are loaded into vLLM as they are held.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rung.engine.adapter_folder import check_adapter
from rung.engine.whole_weights import is_whole
from rung.errors import Busy, ModelError, came, fault_text
from rung.models.answering import AnswerRow, AnswerStep
from rung.models.endpoint.http_connection import ConnectionFault, Reply
from rung.models.endpoint.loop import LoopThread
from rung.models.endpoint.transport import Headers, Hidden, Transport
from rung.models.incremental_text import AnswerText
from rung.models.request_rows import RequestRows, held_to
from rung.models.streaming import Ask, Hearer, Load, Piece, add_tokens, tell_whole, whole_answers
from rung.models.vllm.adapters import rank_of
from rung.models.vllm.base import BaseFolder, refuse_four_bit
from rung.models.vllm.call import VllmStream, body_of, lark_of, message_of, written_tokens
from rung.models.vllm.process import VllmFlags, VllmProcess
from rung.types import Constraint, Generation, Price, Request

BASE = "base"  # what vLLM calls the base; clients ask by rung's names
REFUSED, FAILED = "vLLM refused the request", "vLLM failed in an answer"
"""How the errors of answers begin that are vLLM's fault; all of them begin with its name."""

_LONGEST_S = 3600.0  # of one answer
_LOADING_S = 300.0  # of an adapter
_MOST_LARKS = 128  # grammars that are kept


def start_vllm(
    spec: str,
    name: str,
    adapters: Sequence[Path] = (),
    *,
    say: Callable[[str], None] = lambda _: None,
    python: str | None = None,
    slots: int = 8,
    most_waiting: int = 256,
) -> Vllm:
    """Starts vLLM with a local base, and returns once it answers.

    spec: as for `open_model`; a local model. name: for messages. adapters: folders that will be held; the highest of
    their ranks is the highest that can be loaded later. python: that has vLLM. slots: adapters of one batch.
    Raises ModelError, with the last lines of vLLM's log where it does not start.
    """
    refuse_four_bit(spec, name)
    Transport("http://127.0.0.1:1")  # says what is missing here before anything is started
    base = BaseFolder.of(spec, say=say)
    rows = base.rows()
    rank = max((rank_of(adapter) for adapter in adapters), default=0)
    flags = VllmFlags(base.folder, BASE, rows.context_length, slots, rank, len(adapters))
    return started(flags, rows, name, base.version, say=say, python=python, most_waiting=most_waiting)


def started(
    flags: VllmFlags,
    rows: RequestRows,
    name: str,
    version: str,
    *,
    say: Callable[[str], None] = lambda _: None,
    python: str | None = None,
    most_waiting: int = 256,
) -> Vllm:
    """As `start_vllm`, with flags that are known. rows: of the base, for vLLM alone: its context may become shorter."""
    process = VllmProcess(flags, python=python)
    try:
        say(f"vLLM is starting with {name}; its log is {process.log} …")
        process.wait_until_ready(say)
        return Vllm(process, rows, name, version, most_waiting=most_waiting)
    except BaseException:
        process.end()
        raise


class Vllm:
    """An Answerer over a running vLLM, which ends with it. most_waiting: beyond them `submit` refuses.

    A request waits until its first token; how many vLLM answers together is its own affair.
    """

    def __init__(
        self, process: VllmProcess, rows: RequestRows, name: str, version: str, *, most_waiting: int = 256
    ) -> None:
        self._process, self._rows, self._most_waiting = process, rows, most_waiting
        self._transport = Transport(process.url)
        key = process.key
        self._headers: Headers = {
            "content-type": "application/json",
            "authorization": Hidden(lambda: f"Bearer {key}"),
        }
        self._loop = LoopThread("rung-vllm")
        self._going: set[_Going] = set()
        self._names: dict[Path, str] = {}  # of adapters in vLLM; one that is loaded again gets another
        self._holds: Counter[Path] = Counter()
        self._loaded = 0
        self._holding = threading.Lock()
        self._text_lock = threading.Lock()  # tokenizers and grammars are not made for several threads
        self._changed = threading.Condition()
        self._closed = False
        self._tokens = [0, 0, 0]  # in, cached, out
        self._larks: dict[str, str] = {}
        self._read_length()
        self.model = _Base(rows, name, version, self.generate)

    # ---- from any thread --------------------------------------------------------------------

    def submit(self, ask: Ask, hears: Hearer) -> _Going:
        return self._put(ask, hears, refuse=True)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Whole answers, in order. They wait among the others, and are not refused for their number."""
        return whole_answers(requests, partial(self._put, refuse=False))

    def hold(self, adapter: Path) -> None:
        check_adapter(adapter, self.model.version)
        if is_whole(adapter):
            raise ModelError(
                f"{adapter.name}: all weights were trained, and vLLM takes adapters. Use the local engine."
            )
        with self._holding:
            if adapter in self._names:
                self._holds[adapter] += 1
                return
            self._loaded += 1
            name = f"adapter-{self._loaded}"
            record = {"lora_name": name, "lora_path": str(adapter.resolve())}
            reply = self._loop.run(self._post("/v1/load_lora_adapter", record, _LOADING_S))
            if reply.status != 200:
                raise ModelError(f"adapter {adapter.name}: vLLM does not load it: {_said(reply)}.")
            self._names[adapter], self._holds[adapter] = name, 1

    def release(self, adapter: Path) -> None:
        with self._holding:
            self._holds[adapter] -= 1
            if self._holds[adapter] <= 0 and (name := self._names.pop(adapter, None)) is not None:
                self._loop.run(self._post("/v1/unload_lora_adapter", {"lora_name": name}, _LOADING_S))

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that vLLM takes."""
        return self._rows.context_length

    @property
    def ended(self) -> bool:
        """Whether its process has ended."""
        return self._process.ended

    def failure(self, what: str) -> ModelError:
        """An error that shows the end of its log."""
        return self._process.failure(what)

    def load(self) -> Load:
        going = list(self._going)
        running = sum(one.begun for one in going)
        return Load(running, len(going) - running, len(self._names), *self._tokens)

    def close(self, grace_s: float = 0.0) -> None:
        """What waits and runs has `grace_s` seconds to end; then vLLM ends."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: not self._going, grace_s)
        try:
            self._loop.run(self._transport.aclose())
        finally:
            self._loop.close()
            self._process.end()

    def _put(self, ask: Ask, hears: Hearer, *, refuse: bool) -> _Going:
        if self._process.ended and not self._closed:
            raise self._process.gone()
        going = _Going(ask, hears)
        with self._text_lock:
            row = self._rows.asked(ask.request) if ask.text is None else self._rows.continued(ask.text, ask.request)
            if isinstance(row, AnswerRow) and ask.request.constraint is not None:
                going.grammar = self._lark(ask.request.constraint)
        if isinstance(row, Generation):
            tell_whole(hears, row)
            return going
        row.job = replace(row.job, top_p=ask.top_p)
        with self._changed:
            if self._closed:
                raise Busy("the server is about to end. Try again later.", 5.0)
            if refuse and self.load().waiting >= self._most_waiting:
                raise Busy(f"{self._most_waiting:,} requests wait already. Try again later.")
            self._going.add(going)
        try:
            going.begin_with(row, self._rows)
            going.stop = self._loop.start(self._answered(going), lambda future: self._ended(going, future))
        except BaseException:
            with self._changed:
                self._going.discard(going)
            raise
        return going

    def _ended(self, going: _Going, future: Future[Generation]) -> None:
        generation = going.ended(future)
        with self._changed:
            self._going.discard(going)
            add_tokens(self._tokens, generation)
            self._changed.notify_all()

    # ---- in the loop's thread ---------------------------------------------------------------

    async def _answered(self, going: _Going) -> Generation:
        row, text, chat = going.row, going.text, self._rows.chat
        started = time.perf_counter()
        cached = 0
        while not text.stopped and (step := row.next_step(chat, self._rows.context_length)) is not None:
            stream = await self._stream(going, step)
            cached = cached or stream.tokens_cached
            row.heard(step, stream.ids, chat, self._rows.context_length)
        row.seconds = time.perf_counter() - started
        generation = self._rows.generation(row, going.prompt, raw=going.ask.text is not None)
        cut = text.cut(generation.text)
        if len(cut) < len(generation.text):
            generation = replace(generation, text=cut, finish="stop")
        return held_to(replace(generation, tokens_cached=min(cached, going.prompt)), going.ask.request.constraint)

    async def _stream(self, going: _Going, step: AnswerStep) -> VllmStream:
        """The whole step, or what was written until a stop text. Raises ModelError."""
        chat = self._rows.chat
        logprobs = None if step.thinks else going.ask.logprobs

        def told(new: Sequence[int], found: Sequence[Any]) -> None:
            going.tell_begun()
            if not step.thinks:
                written = [id_ for id_ in new if id_ not in step.stop_ids]
                tokens = written_tokens(chat, found[: len(written)], logprobs or 0) if found else ()
                going.tell(going.text.add(written), tokens)
            if going.text.stopped:
                exchange.cancel()

        stream = VllmStream(told)
        grammar = going.grammar if step.job.matcher is not None else None
        stops = [id_ for id_ in sorted(step.stop_ids) if id_ < self._rows.vocabulary]
        body = body_of(step.job, stops, self._name_of(going.ask.request), grammar=grammar, logprobs=logprobs)
        exchange = asyncio.ensure_future(self._post("/v1/completions", body, _LONGEST_S, stream.feed))
        try:
            reply = await exchange
        except asyncio.CancelledError:
            if not going.text.stopped:
                raise
            return stream
        if reply.status != 200:
            raise ModelError(f"{REFUSED if reply.status < 500 else FAILED}: {_said(reply)}.")
        if stream.error is not None or stream.finish not in ("stop", "length"):
            raise ModelError(f"{FAILED}: {stream.error or stream.finish or 'its stream ended early'}.")
        if stream.finish == "stop" and not (stream.ids and stream.ids[-1] in step.stop_ids):
            stream.ids.append(chat.end_id)  # the end of a grammar, which vLLM does not send
        return stream

    async def _post(self, path: str, record: dict[str, Any], timeout_s: float, on_data: Any = None) -> Reply:
        body = json.dumps(record).encode()
        try:
            for left in (1, 0):
                try:
                    return await self._transport.exchange(
                        "POST", path, headers=self._headers, body=body, timeout_s=timeout_s, on_data=on_data
                    )
                except ConnectionFault as fault:  # a kept connection that was closed meanwhile: nothing was answered
                    if not (fault.stale and left):
                        raise
        except ConnectionFault as fault:
            await asyncio.sleep(0.1)  # a process that dies closes its connections first
            if self._process.ended:
                raise self._process.gone() from None
            raise ModelError(f"vLLM did not answer: {fault.detail}") from None
        raise AssertionError("unreachable")

    def _name_of(self, request: Request) -> str:
        if request.adapter is None:
            return BASE
        if (name := self._names.get(Path(request.adapter))) is None:
            raise ModelError(f"adapter {Path(request.adapter).name} is not loaded.")
        return name

    def _lark(self, constraint: Constraint) -> str:
        """Made once, while they are not too many: a server's clients may send as many as they like."""
        key = repr((constraint.kind, constraint.value))
        if key not in self._larks:
            if len(self._larks) >= _MOST_LARKS:
                self._larks.clear()
            tokenizer = self._rows.chat.tokenizer
            self._larks[key] = lark_of(constraint, self._rows.chat.answer_tokens(), tokenizer.eos_token_id)
        return self._larks[key]

    def _read_length(self) -> None:
        """A user's flag may have made the context shorter."""
        reply = self._loop.run(
            self._transport.exchange("GET", "/v1/models", headers=self._headers, timeout_s=_LOADING_S)
        )
        served = json.loads(reply.body)["data"] if reply.status == 200 else []
        lengths = [one["max_model_len"] for one in served if one.get("id") == BASE and one.get("max_model_len")]
        self._rows.context_length = min([self._rows.context_length, *lengths])


class _Going:
    """A request on its way; the Ticket of who asked."""

    def __init__(self, ask: Ask, hears: Hearer) -> None:
        self.ask, self._hears = ask, hears
        self.begun = False
        self.prompt = 0
        self.grammar: str | None = None  # of its constraint, in Lark
        self.stop: Callable[[], None] = lambda: None

    def begin_with(self, row: AnswerRow, rows: RequestRows) -> None:
        self.row, self.prompt = row, len(row.job.prompt)
        raw = self.ask.text is not None
        self.text = AnswerText(rows.chat, stop=self.ask.stop, spelt=row.spelt, raw=raw)

    def cancel(self) -> None:
        self.stop()

    def tell_begun(self, tokens_cached: int = 0) -> None:
        if not self.begun:
            self.begun = True
            self._hears.begun(self.prompt, tokens_cached)

    def tell(self, text: str, tokens: Sequence[Any] = ()) -> None:
        if text or tokens:
            self._hears.piece(Piece(text, tuple(tokens)))

    def ended(self, future: Future[Generation]) -> Generation:
        """The end in any case: what is left is told, and then that it is over."""
        told = self.text.told
        try:
            generation = future.result()
        except CancelledError:
            generation = Generation(told, self.prompt, 0, 0.0, "error", "nobody listens any more")
        except Exception as error:  # of this request; others go on
            generation = Generation(told, self.prompt, 0, 0.0, "error", fault_text(error).rstrip("."))
        if came(generation.error):
            self.tell_begun(generation.tokens_cached)
        self.tell(self.text.finish(generation.text))
        self._hears.done(generation)
        return generation


class _Base:
    """The base as a Model."""

    price: Price | None = None

    def __init__(
        self, rows: RequestRows, name: str, version: str, generate: Callable[[Sequence[Request]], list[Generation]]
    ) -> None:
        self.name, self.version, self.context_length = name, version, rows.context_length
        self.generate, self.count_tokens, self.check = generate, rows.count_tokens, rows.check


def _said(reply: Reply) -> str:
    try:
        record = json.loads(reply.body)
    except ValueError:
        return f"status {reply.status}"
    return message_of(record.get("error", record) if isinstance(record, dict) else record).rstrip(".")

"""Names that answer: bundles, plain adapters and bases, many over one base. Knows nothing of HTTP.

Each base has one Answerer, which batches what is asked of it. A bundle's search and prompt are made in threads beside
it. Adapters come and go while others answer: a name is gone at once, its weights once nobody uses them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rung.errors import (
    DOES_NOT_FIT,
    REFUSED_TURNS,
    Busy,
    ConstraintError,
    ModelError,
    Unanswerable,
    UnknownModel,
    came,
    may_pass,
)
from rung.models.computing import computes_with
from rung.models.streaming import Answerer, Ask, Load, Ticket, as_model
from rung.serving.bundle import Bundle, Packed, read_bundle
from rung.serving.conversation import query_of
from rung.serving.events import Begun, Event, ModelCall, Piece, Served
from rung.serving.names import check_name, confined
from rung.serving.own_paths import OwnPaths, told_as
from rung.serving.tidying import Tidied
from rung.types import Decoding, Generation, Query, Request

_ROOM = 1 << 20  # tokens: what a base may write at most, where neither the request nor the service says less
_FORM_ROOM = 1_024  # tokens of a form that a client demands of a bundle: its own length was tested with its own form


@dataclass(frozen=True)
class ServiceLimits:
    """most_tokens: of an answer; None: what the context leaves. most_waiting: requests of all bases together; beyond
    them a new one is refused. threads: prompts that are made at the same time, and as many searches beside them."""

    most_tokens: int | None = None
    most_waiting: int = 256
    threads: int = 8


@dataclass(eq=False)
class _Entry:
    """A name. users: requests that are being answered with it; gone: it takes no more of them. stays: it was named
    at the start, and is not unloaded."""

    served: Served
    answerer: Answerer
    bundle: Bundle | None = None
    users: int = 0
    gone: bool = False
    stays: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class ModelService:
    """bases: name -> who answers with that base. adapters: the folder that hot-loaded adapters must lie in; None: none
    may be loaded."""

    def __init__(
        self, bases: Mapping[str, Answerer], *, adapters: Path | None = None, limits: ServiceLimits | None = None
    ) -> None:
        self._bases = dict(bases)
        self._adapters = adapters.resolve() if adapters is not None else None
        self._limits = limits = limits or ServiceLimits()
        self._prompts = ThreadPoolExecutor(limits.threads, thread_name_prefix="prompts")
        self._searches = ThreadPoolExecutor(limits.threads, thread_name_prefix="searches")
        self._preparing = 0
        self._draining = False
        self._own = OwnPaths()
        self._loading = asyncio.Lock()
        self._entries: dict[str, _Entry] = {}
        for name, answerer in self._bases.items():
            served = Served(name, "base", None, name, int(time.time()), answerer.model.context_length)
            self._entries[name] = _Entry(served, answerer, stays=True)

    # ---- names ------------------------------------------------------------------------------

    def add(self, name: str, packed: Packed, base: str) -> Served:
        """A bundle, before or while others answer, which stays. base: a name among the bases; its model must be the
        bundle's.

        Raises ServingError where the name is taken or not allowed, RunError or ModelError where the bundle does not
        fit.
        """
        check_name(name)
        self._check_free(name)
        entry = self._bundle(name, packed, base)
        self._check_free(name)
        entry.stays = True
        self._entries[name] = entry
        return entry.served

    async def load_adapter(self, name: str, path: str, *, base: str | None = None, in_place: bool = False) -> Served:
        """Serves an adapter folder, or a bundle, that lies in the folder for adapters. base: needed where there are
        several. in_place: it may take the place of another one of this name, whose answers end in peace first.

        Raises ServingError, ModelError or RunError, which say what is wrong with it.
        """
        check_name(name)
        async with self._loading:
            old = self._entries.get(name)
            if not in_place:
                self._check_free(name)
            elif old is not None:
                _check_leaves(old)
            folder = await asyncio.to_thread(confined, self._adapters, path)
            make = self._hot_bundle if (folder / "bundle.json").is_file() else self._hot_adapter
            with told_as(folder, path):
                entry = await asyncio.to_thread(make, name, folder, self._base(base), f"{name} ({path})")
            if not in_place:
                self._check_free(name)
            old = self._entries.get(name)  # it may have been unloaded meanwhile
            self._entries[name] = entry
        if old is not None:
            await self._let_go(old)
        return entry.served

    async def unload_adapter(self, name: str) -> None:
        """The name answers no more from now on; what it is answering ends in peace, then its memory is let go."""
        entry = self._entry(name)
        _check_leaves(entry)
        del self._entries[name]
        await self._let_go(entry)

    def models(self) -> list[Served]:
        """What answers, bases first."""
        return [entry.served for entry in tuple(self._entries.values())]

    def model(self, name: str) -> Served:
        """Raises UnknownModel."""
        return self._entry(name).served

    # ---- answering --------------------------------------------------------------------------

    async def answer(self, asked: ModelCall) -> AsyncIterator[Event]:
        """Begun, pieces, Done. Where the caller stops listening, the answer ends.

        Before the first event it raises UnknownModel, Unanswerable or Busy; ModelError where the model fails.
        """
        entry = self._entry(asked.model)
        if self._draining:
            raise Busy("the server is about to end. Ask another one, or try again later.", 5.0)
        if self._preparing + sum(a.load().waiting for a in self._bases.values()) >= self._limits.most_waiting:
            raise Busy(f"{self._limits.most_waiting:,} requests wait already. Try again later.", 1.0)
        with self._using(entry), closing(_Heard(asyncio.get_running_loop())) as heard:
            self._preparing += 1
            try:
                tidied = await self._submitted(entry, asked, heard)
            finally:
                self._preparing -= 1
            async for event in _events(heard, tidied):
                yield event

    def load(self) -> dict[str, Load]:
        """What the bases have to do."""
        return {name: answerer.load() for name, answerer in self._bases.items()}

    def computing(self) -> dict[str, dict[str, Any]]:
        """Base -> what it is computed with, as `computes_with`, for those that are computed in this process."""
        found = {name: computes_with(answerer.model) for name, answerer in self._bases.items()}
        return {name: record for name, record in found.items() if record is not None}

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return not self._draining

    def drain(self) -> None:
        """Takes no more requests; what runs goes on."""
        self._draining = True

    async def close(self, grace_s: float = 30.0) -> None:
        """Takes no more requests, lets what runs end for at most `grace_s` seconds, then ends."""
        self.drain()
        until = time.monotonic() + grace_s
        while any(entry.users for entry in self._entries.values()) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for answerer in self._bases.values():
            await asyncio.to_thread(answerer.close)
        for pool in (self._prompts, self._searches):
            pool.shutdown(wait=False, cancel_futures=True)

    # ---- parts ------------------------------------------------------------------------------

    def _hot_adapter(self, name: str, folder: Path, base: str, shown: str) -> _Entry:
        answerer = self._bases[base]
        with self._own.path(folder, shown) as own:
            answerer.hold(own)
        length = answerer.model.context_length
        return _Entry(Served(name, "adapter", base, folder.name, int(time.time()), length, own), answerer)

    def _hot_bundle(self, name: str, folder: Path, base: str, shown: str) -> _Entry:
        packed = read_bundle(folder)
        if (adapter := packed.solution.adapter) is None:
            return self._bundle(name, packed, base)
        with self._own.path(Path(adapter), shown) as own:
            return self._bundle(name, replace(packed, solution=replace(packed.solution, adapter=str(own))), base)

    def _bundle(self, name: str, packed: Packed, base: str) -> _Entry:
        answerer = self._bases[base]
        bundle = packed.opened(answerer.model)
        adapter = Path(packed.solution.adapter) if packed.solution.adapter else None
        root, length = packed.place.resolve().name, answerer.model.context_length
        solution, takes_context = packed.solution.name, packed.takes_context
        served = Served(name, "bundle", base, root, int(time.time()), length, adapter, solution, takes_context)
        if adapter is not None:  # last: what fails before it leaves nothing in memory
            answerer.hold(adapter)
        return _Entry(served, answerer, bundle)

    async def _let_go(self, entry: _Entry) -> None:
        """Of what no name stands for any more."""
        entry.gone = True
        if entry.users:
            await entry.idle.wait()
        if (folder := entry.served.adapter) is not None:
            await asyncio.to_thread(entry.answerer.release, folder)
            if folder.is_symlink():
                folder.unlink(missing_ok=True)

    async def _submitted(self, entry: _Entry, asked: ModelCall, heard: _Heard) -> Tidied:
        """Asks the base, in a thread: templates, grammars and searches may take a while. Searches, which may wait for
        the base themselves, have threads of their own, so that they keep no other request waiting."""
        searches = entry.bundle is not None and entry.bundle.retriever is not None
        pool = self._searches if searches else self._prompts

        def submit() -> Tidied:
            ask, tidied = self._prepare(entry, asked)
            if not heard.closed:
                heard.hears_of(entry.answerer.submit(ask, heard))
            return tidied

        return await asyncio.get_running_loop().run_in_executor(pool, submit)

    def _prepare(self, entry: _Entry, asked: ModelCall) -> tuple[Ask, Tidied]:
        """What the base is asked, and how its answer is told."""
        if asked.context and not entry.served.takes_context:
            what = "the inputs that this bundle was tested with" if entry.bundle is not None else "inputs of this model"
            fact = f"rung.context: {what} come with no context"
            raise Unanswerable(f"{fact}. Leave it out, or put its text into the message.", "rung.context")
        if asked.constraint is not None:
            try:
                entry.answerer.model.check(asked.constraint)
            except ConstraintError as error:
                raise Unanswerable(str(error), "response_format") from error
        if entry.bundle is None:
            adapter = str(entry.served.adapter) if entry.served.adapter is not None else None
            decoding = self._decoding(Decoding(_ROOM, keep_space=True), asked)
            request = Request(asked.messages, decoding, asked.constraint, adapter)
            return self._ask(request, asked, asked.prompt), Tidied(None, constraint=request.constraint)
        from rung.solutions.answer import asked_for

        bundle = entry.bundle
        queries = [self._query(bundle, asked)]
        (request,), (search,) = asked_for(
            bundle.solution, as_model(entry.answerer), queries, retriever=bundle.retriever
        )
        tested = request.decoding
        if asked.constraint is not None and asked.constraint != request.constraint:
            request, tested = replace(request, constraint=asked.constraint), replace(tested, max_new_tokens=_FORM_ROOM)
        request = replace(request, decoding=self._decoding(tested, asked))
        return self._ask(request, asked, None), Tidied(bundle, search, request.constraint)

    def _query(self, bundle: Bundle, asked: ModelCall) -> Query:
        if asked.prompt is not None:
            return Query("0", asked.prompt, asked.context)
        said = (bundle.instruction, bundle.solution.instruction)
        query = query_of(asked.messages, said, context=asked.context)
        if query is None:
            raise Unanswerable("the last message must be the user's: it is the input.", "messages")
        return query

    def _decoding(self, tested: Decoding, asked: ModelCall) -> Decoding:
        most = tested.max_new_tokens if asked.max_tokens is None else asked.max_tokens
        return replace(
            tested,
            max_new_tokens=min(most, self._limits.most_tokens or most),
            temperature=tested.temperature if asked.temperature is None else asked.temperature,
            seed=tested.seed if asked.seed is None else asked.seed,
        )

    def _ask(self, request: Request, asked: ModelCall, text: str | None) -> Ask:
        greedy = request.decoding.temperature == 0  # the likeliest token is in every share
        return Ask(request, text, 1.0 if greedy else asked.top_p, asked.stop, asked.logprobs)

    @contextmanager
    def _using(self, entry: _Entry) -> Iterator[None]:
        entry.users += 1
        try:
            yield
        finally:
            entry.users -= 1
            if entry.gone and not entry.users:
                entry.idle.set()

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise UnknownModel(f"there is no model {name!r} here. GET /v1/models lists those that are.")
        return self._entries[name]

    def _base(self, name: str | None) -> str:
        if name is None and len(self._bases) == 1:
            return next(iter(self._bases))
        if name is None:
            raise Unanswerable(f"there are several bases. Name one as base_model: {', '.join(self._bases)}.")
        if name not in self._bases:
            raise Unanswerable(f"{name!r} is no base here. There are {', '.join(self._bases)}.", "base_model")
        return name

    def _check_free(self, name: str) -> None:
        if name in self._entries:
            raise Unanswerable(f"{name} is loaded already. Unload it first, or choose another name.", "lora_name")


def _check_leaves(entry: _Entry) -> None:
    """Raises Unanswerable for what stays as long as the server."""
    if entry.stays:
        what = f"{entry.served.name} is a {entry.served.kind} that was named when the server started"
        raise Unanswerable(f"{what}, and stays as long as the server.", "lora_name")


class _Heard:
    """A Hearer that hands what it hears to an event loop, until it is closed: then what it hears of ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticket: Ticket | None = None
        self.closed = False
        self.queue: asyncio.Queue[Begun | Piece | Generation] = asyncio.Queue()

    def hears_of(self, ticket: Ticket) -> None:
        """From the thread that asked; the listener may have gone meanwhile."""
        self._ticket = ticket
        if self.closed:
            ticket.cancel()

    def close(self) -> None:
        self.closed = True
        if self._ticket is not None:
            self._ticket.cancel()

    def begun(self, tokens_in: int, tokens_cached: int) -> None:
        self._put(Begun(tokens_in, tokens_cached))

    def piece(self, piece: Piece) -> None:
        self._put(piece)

    def done(self, generation: Generation) -> None:
        self._put(generation)

    def _put(self, what: Begun | Piece | Generation) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self.queue.put_nowait, what)


async def _events(heard: _Heard, tidied: Tidied) -> AsyncIterator[Event]:
    while True:
        what = await heard.queue.get()
        if isinstance(what, Begun):
            yield tidied.begun(what)
        elif isinstance(what, Piece):
            if (piece := tidied.piece(what)) is not None:
                yield piece
        else:
            break
    _raise_what_is_no_answer(what)
    last, done = tidied.done(what)
    if last is not None:
        yield last
    yield done


def _raise_what_is_no_answer(generation: Generation) -> None:
    error = generation.error
    if error is None or came(error):
        return
    if DOES_NOT_FIT in error or REFUSED_TURNS in error:
        raise Unanswerable(f"{error}.", "messages")
    if may_pass(error):
        raise Busy(f"{error}. Try again later.", 5.0)
    raise ModelError(error)

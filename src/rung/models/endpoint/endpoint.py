"""A model behind an OpenAI-compatible endpoint: Model and Measured, with answers kept on disk and dollars counted.

What asks and retries is in `asking` and `policy`; this module decides which requests are asked at all, in which way,
and what the record of a run keeps. An API key is in no attribute and no variable of it.
"""

from __future__ import annotations

import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rung.cache import cache_folder
from rung.constraints import checked
from rung.errors import DOES_NOT_FIT, NO_REPLY, ModelError, came
from rung.models.endpoint.asking import FILTERED, Asked, Asker, estimate_tokens
from rung.models.endpoint.batch_api import MOST_CALLS
from rung.models.endpoint.batch_jobs import LEAST_CALLS
from rung.models.endpoint.batching import Batching
from rung.models.endpoint.call_cache import CallCache
from rung.models.endpoint.crew import Crew
from rung.models.endpoint.garbage import rare_collections
from rung.models.endpoint.known import EndpointFacts
from rung.models.endpoint.listing import Listed
from rung.models.endpoint.looking import look, names_served
from rung.models.endpoint.loop import LoopThread
from rung.models.endpoint.policy import Calls
from rung.models.endpoint.prices import price_of, why_no_price
from rung.models.endpoint.protocol import Keys, first_habits, repeated
from rung.models.endpoint.replies import Tells
from rung.models.endpoint.spec import EndpointSpec, version_of
from rung.models.endpoint.structured import Form
from rung.models.endpoint.structured import check as check_constraint
from rung.models.endpoint.till import Till
from rung.models.endpoint.timing import measured_speed, timed
from rung.models.endpoint.transport import Transport
from rung.models.purse import Purse
from rung.models.thinking import THOUGHT_TOKENS
from rung.text import whole
from rung.types import Constraint, Decoding, Generation, Message, Price, Request, Speed

T = TypeVar("T")
Say = Callable[[str], None]

now = time.time
"""Seconds since 1970; tests put another clock in its place."""

CALLS = "calls.sqlite"
"""The call cache, in the cache folder."""

_CONTEXT_LENGTH = 131_072  # where the endpoint does not tell it; its own refusals decide then
_BLOCK, _LEAST_BLOCK, _MOST_BLOCK = 16, 64, 4096  # blocks are so many times the calls in flight
_CHUNK = 64  # requests that are looked up at once; more would keep calls in flight waiting
_SMALL = Request((Message("user", "Answer with one word: ok"),), Decoding(8))  # to see whether anything is answered
_IN_FLIGHT = 16  # expected where nothing is known; 1 on this machine, whose servers often answer one after another


class Endpoint:
    """One model at one endpoint. It answers in a thread with an event loop of its own, from the first call on.

    spec: with no secret in it. say: gets a line when something must be known at once. folder: of the call cache.
    price: of tokens, from the package genai-prices; None where that does not know it. context_length: as the endpoint
    tells it, else a length that most models have at least.
    Raises ModelError where the key is not in the environment.
    """

    def __init__(self, spec: EndpointSpec, *, say: Say = lambda _: None, folder: Path | None = None) -> None:
        spec.key()  # a missing one is said before anything is planned
        self.spec, self._say = spec, say
        self.name, self.version = spec.name, version_of(spec)
        self.answers_key = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', spec.name).strip('-')[:40]}-{self.version}"
        self._cache = CallCache((folder or cache_folder()) / CALLS, say=say)
        self._known = EndpointFacts(self._cache, self.answers_key, first_habits(spec), lambda: now())
        self.context_length = self._known.listed.context_length or _CONTEXT_LENGTH
        self._found = None if spec.is_loopback else price_of(spec.endpoint, spec.name)
        self.price: Price | None = self._found.price if self._found is not None else None
        self._line = _Line(spec, self._known, say)
        self._line.asker.price = self.price
        self._constraints: dict[str, Form] = {}
        self._from_cache = self._answered = 0
        self._tokens = 0
        self._usd = 0.0
        self._close = weakref.finalize(self, _close, self._line, self._cache)

    count_error = 2.0
    """`estimate_tokens` may say half of the true number: answers of digits and marks would be cut."""

    def close(self) -> None:
        """Ends its thread and its connections, and writes what is not written yet."""
        self._close()

    # ---- answering -------------------------------------------------------------------------

    @property
    def block(self) -> int:
        """Answers to ask for at once, so that all calls that may be in flight are, and few are lost to a kill."""
        if self.spec.batch:
            return MOST_CALLS
        return max(_LEAST_BLOCK, min(_BLOCK * self._line.calls.limit, _MOST_BLOCK))

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order. Answers that are kept are not asked for again, and cost nothing.

        The n-th of several equal requests is an answer of its own. Raises ModelError where the endpoint refuses the
        key, the model or the account, or answers none of several requests; BudgetSpent where the purse is empty. What
        was answered until then is kept.
        """
        if any(request.adapter is not None for request in requests):
            raise ModelError(f"{self.spec.where}: an adapter cannot be used with an endpoint. Use a local model.")
        if not requests:
            return []
        self.look()
        with rare_collections():
            return self._run(self._generate(requests))

    def count_tokens(self, text: str) -> int:
        """An estimate from the UTF-8 bytes, since no tokenizer is known: `estimate_tokens` says how good it is."""
        return estimate_tokens(text)

    def check(self, constraint: Constraint) -> None:
        """Raises ConstraintError when a reply could not be held against it, be it by the endpoint or by parsing."""
        check_constraint(constraint)
        form = Form(constraint)
        self._constraints[form.key] = form

    def timed(self, requests: Sequence[Request], concurrency: int) -> list[Generation]:
        """Fresh answers, streamed, with exactly so many calls in flight; none is kept, none comes from the cache."""
        self.look()
        line = self._line
        line.till.start()
        answers = self._run(timed(line.asker, line.till, requests, concurrency))
        return [self._generation(asked, request) for asked, request in zip(answers, requests, strict=True)]

    def start(
        self, request: Request, ended: Callable[[Future[Generation]], None], more: Mapping[str, Any], tells: Tells
    ) -> Callable[[], None]:
        """A fresh answer, which is not kept. Returns at once, with what cancels it. ended: as of `LoopThread.start`;
        more, tells: as of `Asker.ask`."""

        async def fresh() -> Generation:
            return self._generation(await self._line.asker.ask(request, more=more, tells=tells), request)

        return self._line.loop.start(fresh(), ended)

    @property
    def in_flight(self) -> int:
        """Calls that may run at once now."""
        return self._line.calls.limit

    async def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        line = self._line
        keys = Keys(self.spec, self._known.listed.server, self._known.listed.weights)
        times: Counter[str] = Counter()
        found: dict[int, Generation] = {}
        asked: list[int] = []
        waiting: dict[str, int] = {}  # for batch jobs
        line.till.start()
        async with Crew(lambda: line.calls.limit) as crew:
            for start in range(0, len(requests), _CHUNK):  # the first calls leave before the last keys are made
                named = {}
                for at in range(start, min(start + _CHUNK, len(requests))):
                    key = keys.of(requests[at])
                    named[at] = repeated(key, times[key])
                    times[key] += 1
                kept = self._kept({key: requests[at] for at, key in named.items()})
                found |= {at: kept[key] for at, key in named.items() if key in kept}
                asked += (new := [at for at in named if at not in found])
                if self.spec.batch and len(requests) >= LEAST_CALLS:
                    waiting |= {named[at]: at for at in new}
                    continue
                for at in new:
                    crew.start(self._ask, at, named[at], requests[at], found)
                await crew.room(line.calls.limit)
            if waiting:
                jobs = {key: requests[at] for key, at in waiting.items()}
                answers = await self._batching().ask(jobs, self._keep)
                found |= {waiting[key]: self._generation(answer, jobs[key]) for key, answer in answers.items()}
            await crew.rest()
        await self._check_reached([found[at] for at in asked])
        return [found[at] for at in range(len(requests))]

    async def _ask(self, at: int, key: str, request: Request, found: dict[int, Generation]) -> None:
        """Puts the answer into `found`, and keeps it."""
        asked = await self._line.asker.ask(request)
        self._keep(key, asked)
        found[at] = self._generation(asked, request)

    def _keep(self, key: str, asked: Asked) -> None:
        if asked.is_kept:
            self._cache.put(key, asked.record())

    def _batching(self) -> Batching:
        line = self._line
        return Batching(line.asker, line.transport, self._cache, self.answers_key, line.till.purse, self._say)

    def _kept(self, asked: Mapping[str, Request]) -> dict[str, Generation]:
        """Answers of earlier calls, by models that are still served."""
        found = {}
        for key, record in self._cache.get(list(asked)).items():
            kept: Asked | None
            if "reply" in record:  # a batch job of an earlier command brought it
                body, _, _ = self._line.asker.body_of(asked[key])
                kept = self._batching().read(asked[key], body, record["reply"])
                if kept is not None:
                    self._keep(key, kept)
            else:
                kept = Asked(**record)
            if kept is not None and self._known.is_current(kept.model):
                found[key] = _generation(kept, asked[key], usd=0.0)
        self._from_cache += len(found)
        return found

    def _generation(self, asked: Asked, request: Request) -> Generation:
        """A new answer, counted. Its dollars are never 0, by which a kept one is known."""
        self._answered += 1
        self._tokens += asked.tokens_in + asked.tokens_out
        self._usd += asked.usd or 0.0
        return _generation(asked, request, usd=asked.usd or None)

    async def _check_reached(self, new: Sequence[Generation]) -> None:
        """Raises ModelError where none of several new answers came, for another reason than the prompts themselves.

        Where requests remain that failed before, all of them may be at fault: a small one tells whether that is so.
        """
        failed = [g.error for g in new if g.error is not None and not came(g.error)]
        errors = [error for error in failed if DOES_NOT_FIT not in error and error != FILTERED]
        if len(errors) < 2 or len(errors) < len(new):
            return
        if all(error.startswith(NO_REPLY) for error in errors):
            if (await self._line.asker.ask(_SMALL)).error is None:
                return
            limited = errors[0].startswith(f"{NO_REPLY} from {self.spec.authority} (429")
            advice = (
                "Wait until the limit allows more" if limited else "Check the network, and whether the server is up"
            )
            raise ModelError(
                f"{self.spec.where}: none of {len(new)} requests to {self.spec.endpoint} got a reply. The first one: "
                f"{errors[0]}. {advice}; then run the same again."
            )
        if not self._known.served:
            raise ModelError(f"{self.spec.where}: it answered none of {len(new)} requests. The first one: {errors[0]}.")

    # ---- what it costs ---------------------------------------------------------------------

    def use_purse(self, purse: Purse | None, price: Price | None = None) -> None:
        """From now on calls are paid from the purse, and so are those of before. price: in the place of its own."""
        self._line.till.use_purse(purse)
        if price is not None:
            self._line.asker.price = price

    # ---- what it knows of itself -----------------------------------------------------------

    def look(self) -> None:
        """Reads the endpoint's list of models, at most once a day; that of a server on this machine, which may serve
        another model now, once a process. Whatever goes wrong there is no error."""
        if (self._known.listing_is_old or self.spec.is_loopback) and not self._line.looked:
            self._look()

    def reach(self) -> None:
        """Asks for the list of models now. Raises ModelError where the key is refused. No other fault is an error."""
        self._look(strict=True)

    def _look(self, *, strict: bool = False) -> None:
        self._line.looked = True
        self._run(look(self._line.asker, strict=strict))
        self.context_length = self._known.listed.context_length or _CONTEXT_LENGTH

    @property
    def listed(self) -> Listed:
        """What the endpoint's list of models told, when it was read last."""
        return self._known.listed

    def names_served(self) -> tuple[str, ...]:
        """Names of the models that the endpoint lists now. Raises ModelError."""
        return self._run(names_served(self._line.asker))

    @property
    def computed_tokens(self) -> int:
        """Tokens in and out of new answers."""
        return self._tokens

    def speed(self) -> Speed:
        """Tokens per second with the calls in flight that can be expected. Two calls measure it, once for all runs."""
        if (speed := self._known.speed) is None:
            self.look()
            lanes = self.spec.in_flight or (1 if self.spec.is_loopback else _IN_FLIGHT)
            speed = self._run(measured_speed(self._line.asker, lanes))
            self._known.keep_speed(speed)
        return speed

    def describe(self) -> dict[str, Any]:
        """Where it runs."""
        server = self._known.listed.server
        return {"endpoint": self.spec.endpoint, "model": self.spec.name} | ({"server": server} if server else {})

    @property
    def thought_tokens(self) -> int:
        """Room for a thought before each answer, where the model was found to think."""
        return THOUGHT_TOKENS if self._known.habits.thinks else 0

    @property
    def remark(self) -> str | None:
        """What a user should know before a run, in whole sentences."""
        said = []
        if (ends := self._known.listed.shutdown_date) is not None:
            said.append(f"{self.name} ends on {ends}, as the endpoint says.")
        if any(self._line.asker.mode_of(form) == "none" for form in self._constraints.values()):
            said.append(f"{self.name} is not held to the form of answers: replies are parsed, and asked for again.")
        if self._line.asker.price is None and not self.spec.is_loopback:
            said.append(f"The price of {self.name} is not known: {why_no_price(self.spec.endpoint, self.spec.name)}")
        return " ".join(said) or None

    def facts(self) -> dict[str, Any]:
        """For the record of a run. Counts are of this process: answers, and requests that failed on the way."""
        known, line, found = self._known, self._line, self._found
        price = line.asker.price
        own = found is not None and price == found.price
        return {
            "endpoint": self.spec.endpoint,
            "model": self.spec.name,
            "server": known.listed.server,
            "context_length": known.listed.context_length,
            "served": dict(known.served),
            "fingerprints": dict(known.fingerprints),
            "response_format": dict(known.used),
            "thinks": known.habits.thinks,
            "takes_temperature": known.habits.temperature,
            "shutdown_date": known.listed.shutdown_date,
            "calls": self._answered,
            "from_cache": self._from_cache,
            "faults": dict(line.calls.faults),
            "in_flight": line.calls.limit,
            "usd": self._usd if price is not None else None,
            "doubtful_usd": line.till.doubtful_usd,
            "price": {k: v for k, v in asdict(price).items() if v is not None} if price is not None else None,
            "price_source": found.source if found is not None and own else None,
            "price_dated": found.dated if found is not None and own else None,
            "price_note": found.note if found is not None and own else None,
        }

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._line.loop.run(work)


class _Line:
    """The connections of an endpoint and what asks over them, without a reference to the Endpoint itself."""

    def __init__(self, spec: EndpointSpec, known: EndpointFacts, say: Say) -> None:
        self.headers = spec.headers()
        self.transport = Transport(spec.base)
        self.till = Till(self.transport)
        self.calls = Calls(self.till, spec.in_flight, spec.timeout)
        self.asker = Asker(spec, self.calls, known, self.headers, say)
        self.looked = False
        self._loop: LoopThread | None = None

    @property
    def loop(self) -> LoopThread:
        if self._loop is None:
            self._loop = LoopThread()
        return self._loop

    def close(self) -> None:
        if self._loop is not None:
            try:
                self._loop.run(self.transport.aclose())
            finally:
                self._loop.close()


def _generation(asked: Asked, request: Request, usd: float | None) -> Generation:
    """What is handed out. Whether the answer meets its constraint is worked out here, and is not kept."""
    finish = "error" if asked.error is not None else "length" if asked.finish == "length" else "stop"
    generation = Generation(
        text=whole(asked.text),
        tokens_in=asked.tokens_in,
        tokens_out=asked.tokens_out,
        latency_s=asked.latency_s,
        finish=finish,  # type: ignore[arg-type]
        error=asked.error,
        tokens_cached=asked.tokens_cached,
        first_token_s=asked.first_token_s,
        usd=usd,
    )
    return checked(generation, request.constraint)


def _close(line: _Line, cache: CallCache) -> None:
    try:
        line.close()
    finally:
        cache.close()

"""How long an endpoint takes, as a client sees it: fresh calls, streamed, with a fixed number of them in flight.

Knows nothing of kept answers: what is timed is never one.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.errors import NO_REPLY, ModelError
from rung.models.endpoint.asking import Asked, Asker
from rung.models.endpoint.crew import Crew
from rung.models.endpoint.policy import CallFailed, Calls, Exchanger, Refused
from rung.models.endpoint.refusals import learnt, refusal_of
from rung.models.endpoint.structured import UnfitReply
from rung.types import Decoding, Message, Request, Speed

_ROUNDS = 8  # of one call, with what may be learnt on the way
_WORDS, _SHORT, _LONG = 400, 16, 64  # of the two prompts and answers that the speed is measured with
_TRAIN_SHARE = 1 / 3  # of the speed of reading; an endpoint is not trained
_LEAST_S = 1e-3


async def timed(asker: Asker, exchanger: Exchanger, requests: Sequence[Request], concurrency: int) -> list[Asked]:
    """Answers with their latencies, `concurrency` of them in flight; fewer only where the endpoint refuses so many.

    Where it is not known how the endpoint holds answers to a constraint, that is found out before anything is timed.
    """
    tried = [
        await asker.ask(request)
        for request in requests
        if request.constraint is not None and not asker.is_proven(request)
    ]
    calls = Calls(exchanger, concurrency, asker.spec.timeout)
    found: dict[int, Asked] = {}
    async with Crew() as crew:
        for at, request in enumerate(requests):
            crew.start(_timed, at, asker, calls, request, found)
        await crew.rest()
    asker.calls.faults.update(calls.faults)
    if usd := sum(asked.usd or 0.0 for asked in tried):
        found[0].usd = (found[0].usd or 0.0) + usd
    return [found[at] for at in range(len(requests))]


async def _timed(at: int, asker: Asker, calls: Calls, request: Request, found: dict[int, Asked]) -> None:
    found[at] = await _streamed(asker, calls, request)


async def _streamed(asker: Asker, calls: Calls, request: Request) -> Asked:
    """One call. Where a stream is refused, the answer comes in one piece, without a time to its first token."""
    asked = Asked()
    for _ in range(_ROUNDS):
        body, form, mode = asker.body_of(request, stream=True)
        try:
            reading = await asker.send(body, request, calls=calls)
        except CallFailed as failed:
            asked.finish, asked.error = "error", f"{NO_REPLY} from {asker.spec.authority} ({failed})"
            return asked
        except Refused as refused:
            habits = learnt(asker.known.habits, body, refusal_of(refused.status, refused.detail))
            if habits is not None:
                asker.known.learn(habits)
            elif body == asker.body_of(request, stream=True)[0]:
                break
            continue
        fault = asker.take(asked, reading, body, form, mode)
        thinks = reading.answered.needs_room and body != asker.body_of(request, stream=True)[0]  # as is known by now
        if not thinks and (fault is None or isinstance(fault, UnfitReply)):
            return asked  # one that does not fit took its time all the same
        asked.forget()
    whole = await asker.ask(request)
    whole.usd = whole.usd if asked.usd is None else (whole.usd or 0.0) + asked.usd
    return whole


async def measured_speed(asker: Asker, in_flight: int) -> Speed:
    """Tokens per second with `in_flight` calls at once, from a long prompt and from a long answer, one call each.

    Raises ModelError where there is no answer to time.
    """
    long = f"{'word ' * _WORDS}\nAnswer with one word: ok"
    short = "Count from 1 to 100, in words."
    asks = [Request((Message("user", text),), Decoding(most)) for text, most in ((long, _SHORT), (short, _LONG))]
    read, written = [await asker.ask(request) for request in asks]
    for asked in (read, written):
        if asked.error is not None:
            raise ModelError(f"{asker.spec.where}: it gave no answer that could be timed: {asked.error}.")
    reads = read.tokens_in / max(read.latency_s, _LEAST_S)
    writes = max(written.tokens_out, 1) / max(written.latency_s, _LEAST_S)
    return Speed(*(float(f"{in_flight * rate:.2g}") for rate in (reads, writes, reads * _TRAIN_SHARE)))

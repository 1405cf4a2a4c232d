"""Requests as batch jobs: bodies out, replies read like those of single calls; what a job leaves is asked by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rung.models.endpoint.asking import Asked, Asker, Say
from rung.models.endpoint.batch_jobs import BatchCall, BatchJobs
from rung.models.endpoint.call_cache import CallCache
from rung.models.endpoint.crew import Crew
from rung.models.endpoint.policy import BadReply, Exchanger, Refused
from rung.models.endpoint.prices import batch_price
from rung.models.endpoint.protocol import most_tokens_in, most_tokens_out
from rung.models.endpoint.replies import Reading, read_answer, wants_tags
from rung.models.endpoint.till import most_usd_of
from rung.models.purse import Purse
from rung.types import Price, Request

Keep = Callable[[str, Asked], None]


class Batching:
    """Asks many requests of one endpoint by batch jobs. price: of single calls; jobs cost the share that prices say."""

    def __init__(
        self, asker: Asker, exchanger: Exchanger, cache: CallCache, scope: str, purse: Purse | None, say: Say
    ) -> None:
        self._asker, self._cache = asker, cache
        spec, price = asker.spec, asker.price
        self._price: Price | None = batch_price(price, spec.endpoint, spec.name) if price is not None else None
        self._jobs = BatchJobs(
            exchanger.exchange, asker.headers, cache, scope=scope, say=say, purse=purse, usd_of=self._usd_of
        )

    async def ask(self, work: Mapping[str, Request], keep: Keep) -> dict[str, Asked]:
        """The answer to each request by its key; keep: gets each as it comes.

        One request is asked by itself first, where it is not known yet how the endpoint takes them.
        """
        asker, found = self._asker, dict[str, Asked]()
        left = dict(work)
        while left and not asker.is_proven(next(iter(left.values()))):
            key = next(iter(left))
            await self._alone(key, left.pop(key), keep, found)
        calls = {}
        for key, request in left.items():
            body, _, _ = asker.body_of(request)
            calls[key] = BatchCall(body, most_usd_of(self._price, most_tokens_in(body), most_tokens_out(body)))
        alone: list[str] = []
        async for replies in self._jobs.answers(calls):
            for key, reply in replies.items():
                if key not in calls:  # of an earlier command: it is read when its request is asked
                    if reply.status == 200:
                        self._cache.put(key, {"reply": dict(reply.body)})
                    continue
                asked = self.read(work[key], calls[key].body, reply.body) if reply.status == 200 else None
                if asked is None:
                    alone.append(key)
                    continue
                found[key] = asked
                keep(key, asked)
        async with Crew() as crew:
            for key in alone:
                crew.start(self._alone, key, work[key], keep, found)
            await crew.rest()
        return found

    def read(self, request: Request, body: Mapping[str, Any], reply: Mapping[str, Any]) -> Asked | None:
        """The answer in a job's reply to a body; None where the request is to be asked again by itself."""
        asked = Asked()
        _, form, mode = self._asker.body_of(request)
        try:
            answered = read_answer(reply, tags_wanted=wants_tags(request.messages))
        except (BadReply, Refused):
            return None
        if self._asker.take(asked, Reading(answered, 0.0), body, form, mode) is not None:
            return None
        asked.usd = self._usd_of(reply) or None
        return asked

    async def _alone(self, key: str, request: Request, keep: Keep, found: dict[str, Asked]) -> None:
        found[key] = await self._asker.ask(request)
        keep(key, found[key])

    def _usd_of(self, reply: Mapping[str, Any]) -> float | None:
        try:
            answered = read_answer(reply)
        except (BadReply, Refused):
            return None
        return self._asker.usd_at(self._price, answered)

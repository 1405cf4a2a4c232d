"""Answers by batch jobs: many calls in one file, answered within a day, for half the price at most providers.

Knows nothing of prompts and of what is in a reply. Nothing is paid twice: a job is written down before it is made,
under a name of its own, which goes to the provider with it; so a process that was killed in between finds the job in
the provider's list. It is forgotten only when its answers have been taken and kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from rung.errors import BudgetSpent
from rung.models.endpoint.batch_api import (
    GONE,
    MOST_BYTES,
    MOST_CALLS,
    OVER,
    BatchApi,
    BatchRefused,
    BatchReply,
    Exchange,
    Headers,
    JsonObject,
    answered_of,
    errors_of,
    line_of,
)
from rung.models.purse import Purse

LEAST_CALLS = 20
"""For fewer calls a job is not worth its wait."""

_ROUNDS = 3  # times that a call is sent at most
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0  # between two questions for a job's state
_MOST_REPLY_BYTES = 200_000_000  # that a job may answer with: a file is read whole
_REPLY_BYTES, _TOKEN_BYTES = 1_000, 4  # of a reply around its text; of a token
_PENDING = "pending "  # before the name of a job that is written down and may not be made yet


class JobStore(Protocol):
    """Where jobs are written down; as `CallCache`. A record is on disk when `add_job` returns."""

    def add_job(self, job: str, record: Mapping[str, Any]) -> None: ...
    def jobs(self) -> dict[str, dict[str, Any]]: ...
    def drop_job(self, job: str) -> None: ...
    def flush(self) -> None: ...


@dataclass(frozen=True)
class BatchCall:
    """One call. body: as a single call would send it. worst_usd: the most that it can cost in a batch job."""

    body: JsonObject
    worst_usd: float = 0.0


@dataclass(frozen=True)
class _Job:
    """A job as it is written down.

    name: rung's own for it. id: the provider's; empty until it is known. created: seconds since 1970. purse: the id of
    the one whose reservation holds `reserved` dollars.
    """

    name: str
    keys: tuple[str, ...]
    scope: str
    created: float
    reserved: float = 0.0
    purse: str = ""
    id: str = ""


class BatchJobs:
    """Answers calls by batch jobs at one endpoint.

    exchange, headers: as of the transport. store: where jobs are written down. scope: names the endpoint and its model;
    jobs of other scopes are left alone. say: gets a line when something happens. purse: reserves the most that a job
    can cost before it is sent. usd_of: what a reply's body was charged, in dollars; None where that cannot be read from
    it. sleep, now: for tests.
    """

    def __init__(
        self,
        exchange: Exchange,
        headers: Headers,
        store: JobStore,
        *,
        scope: str,
        say: Callable[[str], None] = lambda _: None,
        purse: Purse | None = None,
        usd_of: Callable[[JsonObject], float | None] = lambda _: 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = BatchApi(exchange, headers, sleep)
        self._store, self._scope, self._say = store, scope, say
        self._purse, self._usd_of, self._sleep, self._now = purse, usd_of, sleep, now
        self._open: dict[str, float] = {}  # name of a job of this process -> dollars that its purse holds reserved
        # Where the provider says that too many tokens are waiting, jobs get smaller and come one after the other.
        self._most_calls, self._one_by_one = MOST_CALLS, False

    async def answers(self, calls: Mapping[str, BatchCall]) -> AsyncIterator[dict[str, BatchReply]]:
        """Replies by key, as jobs are over. Every key of `calls` comes once; replies of status 200 to earlier calls may
        come with them.

        The caller keeps what it was given before it asks for more: then the job that gave it is forgotten. Calls that
        failed for a while are sent again, each at most three times in all; then their reply says why there is none.
        Raises ModelError where the endpoint cannot be reached or has no batch interface, and BudgetSpent where not even
        one more call can be afforded. Jobs go on when this is cancelled; the same calls find them again.
        """
        left, sent = dict(calls), Counter[str]()
        jobs = [job for job in await self._under_way() if not left.keys().isdisjoint(job.keys)]
        while left:
            held = {key for job in jobs for key in job.keys}
            unsent = {key: call for key, call in left.items() if key not in held}
            async for job in self._send(unsent, waits=bool(jobs)):
                jobs.append(job)
            async for job, state in self._over(jobs):
                replies = await self._replies(job, state)
                if not self._shrinks(job, state):
                    sent.update(job.keys)
                done = {
                    k: r for k, r in replies.items() if r.status == 200 or (k in left and self._given_up(r, sent[k]))
                }
                for key in done:
                    left.pop(key, None)
                if done:
                    yield done
                self._forget(job, state, replies)
            jobs = []
            if again := len(left.keys() & sent.keys()):
                self._say(f"{again:,} calls of batch jobs got no answer and are sent again")

    @staticmethod
    def _given_up(reply: BatchReply, sent: int) -> bool:
        return not reply.may_pass or sent >= _ROUNDS

    # ---- making jobs ------------------------------------------------------------------------

    async def _send(self, calls: Mapping[str, BatchCall], *, waits: bool) -> AsyncIterator[_Job]:
        """Makes jobs of the calls, as many as can be afforded; the others wait until a job is over and settled.

        waits: whether there are jobs under way already.
        """
        lines = {key: line_of(key, call.body) for key, call in calls.items()}
        while lines and not (waits and self._one_by_one):
            keys, reserved = self._affordable(calls, lines, least=LEAST_CALLS if waits else 1)
            if not keys and waits:
                return
            if not keys:
                raise BudgetSpent("The dollars that are left do not suffice for one more call of a batch job.")
            job = _Job(uuid.uuid4().hex, tuple(keys), self._scope, self._now(), reserved, self._purse_id())
            yield await self._make(job, [lines.pop(key) for key in keys])
            waits = True

    def _affordable(
        self, calls: Mapping[str, BatchCall], lines: Mapping[str, bytes], *, least: int
    ) -> tuple[list[str], float]:
        """Keys for one job, and the dollars that are now reserved for them; none where `least` cannot be afforded."""
        left = self._purse.left if self._purse is not None else None
        keys: list[str] = []
        size, reply, usd = 0, 0, 0.0
        for key, line in lines.items():
            size, reply, more = size + len(line), reply + _most_reply(calls[key].body), usd + calls[key].worst_usd
            if keys and (len(keys) == self._most_calls or size > MOST_BYTES or reply > _MOST_REPLY_BYTES):
                break
            if left is not None and more > left:
                break
            keys.append(key)
            usd = more
        if len(keys) < min(least, len(lines)):
            return [], 0.0
        while keys and self._purse is not None and not self._purse.reserve(usd):
            keys = keys[: len(keys) // 2]  # calls of other threads were faster
            usd = sum(calls[key].worst_usd for key in keys)
        return keys, usd

    async def _make(self, job: _Job, lines: list[bytes]) -> _Job:
        """The job, made at the provider and written down. Its dollars are reserved already."""
        self._open[job.name] = job.reserved
        pending = _PENDING + job.name
        try:
            file = await self._api.upload(lines)
            self._store.add_job(pending, asdict(job))
        except BaseException:
            self._settle(job, 0.0)
            raise
        digest = hashlib.sha256("\n".join(job.keys).encode()).hexdigest()
        try:
            made = replace(job, id=await self._api.create(file, job.name, {"keys": digest}, job.created))
        except BatchRefused:
            self._store.drop_job(pending)
            self._settle(job, 0.0)
            raise
        self._store.add_job(made.id, asdict(made))
        self._store.drop_job(pending)
        self._say(
            f"batch job {made.id} of {len(made.keys):,} calls is under way; it may take a day. It goes on when rung is "
            "stopped, and the same command finds it again."
        )
        return made

    # ---- waiting and reading ----------------------------------------------------------------

    async def _under_way(self) -> list[_Job]:
        """The jobs of this scope that are written down. Those that may not have been made are looked for."""
        found: dict[str, _Job] = {}
        for noted, record in self._store.jobs().items():
            job = _Job(**{**record, "keys": tuple(record["keys"])})
            if job.scope != self._scope:
                continue
            if noted.startswith(_PENDING):
                made = await self._api.find(job.name, job.created)
                if made is not None:
                    job = replace(job, id=made)
                    self._store.add_job(made, asdict(job))
                self._store.drop_job(noted)
                if made is None:
                    self._settle(job, 0.0)
                    continue
            found[job.name] = job
        return list(found.values())

    async def _over(self, jobs: Iterable[_Job]) -> AsyncIterator[tuple[_Job, JsonObject]]:
        """Each job when it is over, with its state."""
        waiting = list(jobs)
        pause, said = _FIRST_PAUSE_S, Counter[str]()
        while waiting:
            for job in list(waiting):
                state = await self._api.state(job.id)
                if state.get("status") in OVER:
                    waiting.remove(job)
                    yield job, state
                elif (answered := answered_of(state)) > said[job.id]:
                    said[job.id] = answered
                    self._say(f"batch job {job.id}: {answered:,} of {len(job.keys):,} calls are answered")
            if waiting:
                await self._sleep(pause)
                pause = min(1.5 * pause, _LONGEST_PAUSE_S)

    async def _replies(self, job: _Job, state: JsonObject) -> dict[str, BatchReply]:
        """The replies to all calls of a job that is over; those that have none get status 0 and the reason."""
        why = f"batch job {job.id} {OVER[state['status']]}"
        why += "".join(f": {message}" for _, message in errors_of(state)[:1])
        replies = {key: BatchReply(0, {}, f"{why}; it has no answer to this call") for key in job.keys}
        for kind in ("error_file_id", "output_file_id"):
            if not (file := state.get(kind)):
                continue
            found = await self._api.replies(file)
            if found is None:
                self._say(f"batch job {job.id}: its file {file} is gone, and with it the answers in it")
            replies.update((key, reply) for key, reply in (found or {}).items() if key in replies)
        answered = sum(reply.status == 200 for reply in replies.values())
        self._say(f"{why}; it has answered {answered:,} of {len(job.keys):,} calls")
        return replies

    def _shrinks(self, job: _Job, state: JsonObject) -> bool:
        """Whether the job failed because too many tokens were waiting, so that smaller jobs one by one may pass."""
        if state["status"] != "failed" or not any("token_limit" in code for code, _ in errors_of(state)):
            return False
        if self._one_by_one and len(job.keys) == 1:
            return False
        if self._one_by_one:
            self._most_calls = max(1, len(job.keys) // 2)
        self._one_by_one = True
        self._say("too many tokens are waiting at the provider; batch jobs are sent one after the other, and smaller")
        return True

    def _forget(self, job: _Job, state: JsonObject, replies: Mapping[str, BatchReply]) -> None:
        """Once its answers are kept: the job is dropped, then what it did cost is settled.

        Where answers are lost that were charged, all that was reserved counts as spent; for a reply that does not tell
        what it was charged, its share of that.
        """
        self._store.flush()
        self._store.drop_job(job.id)
        bodies = [reply.body for reply in replies.values() if reply.status == 200]
        lost = len(bodies) < answered_of(state) or any(code == GONE for code, _ in errors_of(state))
        told = [self._usd_of(body) for body in bodies]
        usd = sum(job.reserved / len(job.keys) if one is None else one for one in told)
        self._settle(job, max(usd, job.reserved) if lost else usd)

    # ---- dollars ----------------------------------------------------------------------------

    def _settle(self, job: _Job, usd: float) -> None:
        """Tells the purse what a job did cost.

        A job of an earlier command counts there with all that was reserved for it, so the difference is given back.
        One that another run has paid for costs this one nothing.
        """
        if self._purse is None:
            return
        if job.name in self._open:
            self._purse.settle(self._open.pop(job.name), usd)
        elif job.purse == self._purse_id():
            self._purse.settle(0.0, usd - job.reserved)

    def _purse_id(self) -> str:
        return self._purse.id if self._purse is not None else ""


def _most_reply(body: JsonObject) -> int:
    """Bytes that a reply may have, roughly."""
    return _REPLY_BYTES + _TOKEN_BYTES * int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)

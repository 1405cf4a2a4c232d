"""A vLLM that belongs to a model: started when it is needed, kept, started once more where it dies, ended for room.

Adapters are loaded as requests name them. Knows processes and adapters; nothing of what answers where vLLM does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from rung.errors import ModelError, came
from rung.models.vllm.adapters import rank_of
from rung.models.vllm.answerer import BASE, REFUSED, Vllm, started
from rung.models.vllm.base import BaseFolder
from rung.models.vllm.process import VllmFlags
from rung.models.vllm.share import ROWS, SLOTS, VllmShare
from rung.types import Decoding, Generation, Message, Request

_LEAST_RANK = 16  # as rung trains by default
_MOST_HELD = 32  # adapters in vLLM between two questions
_DYING_S = 3.0  # that vLLM's server may take to end after its engine has died


class VllmChild:
    """base: what it answers with. dtype: that a GPU computes in; None: as vLLM chooses. room: rank of adapters -> the
    memory to start with, which may be made first; it raises OutOfMemory where there is none. on_start: hears the
    seconds that each start took."""

    def __init__(
        self,
        base: BaseFolder,
        *,
        dtype: str | None,
        room: Callable[[int], VllmShare],
        say: Callable[[str], None],
        on_start: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._base, self._dtype, self._room, self._say, self._on_start = base, dtype, room, say, on_start
        self._vllm: Vllm | None = None
        self._rank = _LEAST_RANK
        self._held: dict[Path, None] = {}  # the one used last stands last

    @property
    def running(self) -> bool:
        return self._vllm is not None and not self._vllm.ended

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together; None while it does not run."""
        return self._vllm.context_length if self._vllm is not None else None

    def start(self) -> None:
        """Starts vLLM where it does not run. Raises ModelError where it does not start."""
        self._started(())

    def answer(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order; errors of requests stand in theirs. Adapters are held before.

        A vLLM that dies meanwhile is started once more, and asked again what it did not answer. Raises ModelError where
        it dies then, too, or does not start.
        """
        found: dict[int, Generation] = {}
        for last in (False, True):
            left = [i for i in range(len(requests)) if i not in found]
            vllm = self._started(requests)
            try:
                answers = vllm.generate([requests[i] for i in left])
            except ModelError:
                if not vllm.ended:
                    raise
                answers = []
            failed = any(is_its_fault(g) and not (g.error or "").startswith(REFUSED) for g in answers)
            gone = _has_ended(vllm, failed=failed)
            found |= {i: g for i, g in zip(left, answers, strict=False) if came(g.error) or not gone}
            if len(found) == len(requests):
                self._drop_old()
                return [found[i] for i in range(len(requests))]
            failure = vllm.failure("vLLM ended while it answered, also when it was started again")
            self.end()
            if not last:
                self._say("vLLM ended while it answered; it is started once more …")
        raise failure

    def try_out(self) -> float:
        """Starts vLLM, asks it one short question, and returns the seconds of its answer.

        Raises ModelError where it does not start, or its answer is an error.
        """
        self.start()
        began = time.monotonic()
        (answer,) = self.answer([Request((Message("user", "What colour is the sky?"),), Decoding(8))])
        if answer.error is not None:
            raise ModelError(f"model {self._base.spec}: vLLM started, and gave no answer: {answer.error}")
        return time.monotonic() - began

    def hold(self, adapter: Path) -> None:
        """Loads an adapter, which stays for the next questions. Raises ModelError where vLLM does not take it."""
        for last in (False, True):
            vllm = self._started((), rank_of(adapter))
            if adapter in self._held:
                self._held[adapter] = self._held.pop(adapter)
                return
            try:
                vllm.hold(adapter)
            except ModelError:
                if last or not _has_ended(vllm, failed=True):
                    raise
                self.end()
                continue
            self._held[adapter] = None
            return

    def release(self, adapter: Path) -> None:
        """Its folder is read afresh when it is named next."""
        if adapter in self._held:
            del self._held[adapter]
            if self._vllm is not None and self.running:
                with suppress(ModelError):  # it dies, and holds nothing when it is started again
                    self._vllm.release(adapter)

    def end(self) -> None:
        """Ends vLLM; the next question starts it again. A second call does nothing."""
        vllm, self._vllm = self._vllm, None
        self._held.clear()
        if vllm is not None:
            vllm.close()

    def _started(self, requests: Iterable[Request], rank: int = 0) -> Vllm:
        """A running vLLM that holds the adapters of these requests, and takes adapters of this rank."""
        if self._vllm is not None and (self._vllm.ended or rank > self._rank):
            self.end()
        self._rank = max(self._rank, rank)
        if self._vllm is None:
            share = self._room(self._rank)
            rows = self._base.rows()
            rows.context_length = min(rows.context_length, share.context)
            flags = VllmFlags(
                self._base.folder,
                BASE,
                rows.context_length,
                slots=SLOTS,
                rank=self._rank,
                adapters=_MOST_HELD,
                dtype=self._dtype,
                share=share.share,
                rows=ROWS,
            )
            began = time.monotonic()
            self._vllm = started(flags, rows, self._base.spec, self._base.version, say=self._say)
            self._on_start(time.monotonic() - began)
        for adapter in {Path(r.adapter) for r in requests if r.adapter is not None} - self._held.keys():
            self._vllm.hold(adapter)
            self._held[adapter] = None
        return self._vllm

    def _drop_old(self) -> None:
        while len(self._held) > _MOST_HELD:
            self.release(next(iter(self._held)))


def is_its_fault(generation: Generation) -> bool:
    """Whether vLLM gave no answer that it should have given."""
    return (generation.error or "").startswith("vLLM")


def _has_ended(vllm: Vllm, *, failed: bool) -> bool:
    """Whether it is dead. failed: it did not do something; its server may take a moment to follow its engine."""
    until = time.monotonic() + _DYING_S
    while not vllm.ended and failed and time.monotonic() < until:
        time.sleep(0.1)
    return vllm.ended

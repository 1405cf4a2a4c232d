"""Rows that join and leave while others are being answered: continuous batching on the tree path.

Rows that join together are prefilled together and keep one KV cache, a *cohort*. A decode step is one pass over the
tokens of all cohorts; only attention looks at each cohort's own cache. Small cohorts are joined into one, so that there
are never many. Where passes are static, as on a GPU, cohorts are handed over to recorded steps (`static_cohort`). What
prompts begin with alike is computed once and kept (`Starts`), for each adapter.

An adapter has a *slot* while rows of it are answered. Where there are more adapters than slots, the rows of the others
wait until one is free; within a pass the slots decide the order of adapters, so that it seldom changes.
Source of the idea: Yu et al., Orca (2022); of many adapters in a batch: Sheng et al., S-LoRA (2023).
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import combinations
from pathlib import Path

import torch

from rung.engine.cohorts import AllCohorts, Cohort, Families, PassKind
from rung.engine.kv_cache import RowCache
from rung.engine.live_rows import LiveRow, choose_tokens
from rung.engine.memory import Shortage
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefill import Job, prefill, prefix_in_memory
from rung.engine.starts import Starts
from rung.engine.static_cohort import StaticCohort
from rung.engine.tree_engine import Prefix, TreeEngine
from rung.engine.ways import ANSWERS
from rung.engine.whole_weights import is_whole
from rung.errors import ModelError, first_line

_ROOM = 64  # new tokens that a row has room for before its cache grows
_COHORTS = 4  # of one kind; beyond them two are joined, as far as memory allows
_JOINING = 2_048  # tokens that are prefilled in one round, so that rows which are being answered do not wait for long;
# and beside them as many of one longer prompt, so that short ones do not wait for it either
_PATIENCE = 64  # steps with as many rows as may run, after which more of them are tried again
_STATIC = PassKind(None, False)  # of rows that may stand in static steps
_PASSED_OVER = 256  # rows that may go before one that waits for a slot; then no other takes a slot before it


class Running:
    """The rows of one network. All methods are called from one thread.

    A round is `admit`, `choose`, `advance`: waiting rows are prefilled, every row gets its next token, and the tokens
    go through the network. slots: adapters of one pass.
    """

    def __init__(self, engine: TreeEngine, *, slots: int = 8) -> None:
        self._engine = engine
        self._slots: list[str | None] = [None] * (1 + slots)  # the base stands first, and always
        self._waiting: list[LiveRow] = []
        self._cohorts: list[Cohort] = []
        self._held: set[str | None] = {None}  # adapters that rows need
        self._starts = Starts()
        self._static = StaticCohort(engine, self._plain_pass)
        self._limits, self._shortage = engine.limits, Shortage(patience=_PATIENCE)  # of rows at once

    def add(self, row: LiveRow) -> None:
        self._waiting.append(row)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return sum(len(cohort.rows) for cohort in self._cohorts) + len(self._static.rows)

    def forget(self, adapter: str) -> None:
        """No row needs this adapter any more; it leaves its slot."""
        self._slots = [None if name == adapter else name for name in self._slots]
        self._starts.forget(adapter)

    def close(self) -> None:
        """Lets go of all rows, and of what was recorded for them."""
        self._waiting, self._cohorts = [], []
        self._static.close()

    # ---- a round ----------------------------------------------------------------------------

    def admit(self) -> list[LiveRow]:
        """Prefills waiting rows as far as there is room; returns rows that ended without an answer."""
        gone = [row for row in self._waiting if row.dropped] + self._static.leave()
        self._waiting = [row for row in self._waiting if not row.dropped]
        for cohort in list(self._cohorts):
            gone += cohort.leave()
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]
        chosen, refused = self._chosen_to_join()
        gone += refused
        for kind, rows in chosen.items():
            try:
                self._join(kind, rows)
            except Exception as error:
                gone += self._after(error, rows)
        return gone

    def choose(self) -> list[LiveRow]:
        """Every row gets a token, or several where its grammar leaves no choice. Returns all rows; ended ones leave."""
        ready = [cohort for cohort in self._cohorts if cohort.last is not None]
        try:
            with torch.inference_mode():
                rows = self._static.choose()
        except Exception as error:
            return self._after(error, [])  # there are no cohorts any more
        for alone in dict.fromkeys(cohort.kind.alone for cohort in ready):  # whole weights have their own output layer
            cohorts = [cohort for cohort in ready if cohort.kind.alone == alone]
            try:
                rows += self._choose(alone, cohorts)
            except Exception as error:
                rows += self._after(error, [row for cohort in cohorts for row in cohort.rows])
                break  # there are no cohorts any more
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]
        return rows

    def _choose(self, alone: str | None, cohorts: list[Cohort]) -> list[LiveRow]:
        rows = [row for cohort in cohorts for row in cohort.rows]
        lasts = [cohort.last for cohort in cohorts if cohort.last is not None]
        with torch.inference_mode():
            with self._engine.adapters.output_of(alone):
                logits = self._engine.logits(lasts[0] if len(lasts) == 1 else torch.cat(lasts))
            taken = iter(choose_tokens(rows, logits))
        for cohort in cohorts:
            cohort.new = [next(taken) for _ in cohort.rows]
            cohort.last = None
            cohort.leave()
        return rows

    def advance(self) -> list[LiveRow]:
        """Puts the chosen tokens through the network; returns rows that ended without their answer."""
        self._keep_within_memory()
        gone = self._static_step()
        for kind in dict.fromkeys(cohort.kind for cohort in self._cohorts):
            cohorts = [cohort for cohort in self._cohorts if cohort.kind == kind and cohort.new]
            if not cohorts:
                continue
            try:
                self._step(kind, cohorts)
            except Exception as error:
                gone += self._after(error, [row for cohort in cohorts for row in cohort.rows])
        self._limits = self._shortage.after_success(self._limits, self.running, 0)
        return gone

    # ---- joining ----------------------------------------------------------------------------

    def _chosen_to_join(self) -> tuple[dict[PassKind, list[LiveRow]], list[LiveRow]]:
        """Waiting rows that are prefilled in this round, by kind, and those whose adapter cannot be applied; both are
        taken off the list. The oldest come first, and of prompts that are read in parts the oldest alone."""
        chosen: dict[PassKind, list[LiveRow]] = {}
        left: list[LiveRow] = []
        without_slot: list[LiveRow] = []
        refused: list[LiveRow] = []
        free = self._limits.rows - self.running
        room = 0
        if self._waiting and free > 0:  # asking for free memory takes time: not with every token
            room = min(self._engine.room_bytes(), self._engine.limits.cache_bytes - self._cache_bytes)
        tokens = looked_at = 0
        has_long = False
        rows = [*self._static.rows, *(row for cohort in self._cohorts for row in cohort.rows)]
        self._held = {None, *(row.job.adapter for row in rows)}
        for row in self._waiting:
            whole = row.tokens
            need = (len(whole) + _ROOM) * self._engine.cache_bytes_per_token
            own = len(whole) - self._starts.known(row.job.adapter, whole)  # tokens that are computed for this row alone
            is_first = not chosen and not rows
            is_long = len(whole) > _JOINING
            if free <= 0 or (tokens and not is_long and tokens + own > _JOINING) or (room < need and not is_first):
                break
            looked_at += 1
            if is_long and has_long:
                left.append(row)
                continue
            if not self._has_slot(row):
                left.append(row)
                without_slot.append(row)
                continue
            if (kind := self._kind(row)) is None:
                refused.append(row)
                continue
            for other in without_slot:
                other.passed_over += 1
            chosen.setdefault(kind, []).append(row)
            free, room, has_long = free - 1, room - need, has_long or is_long
            tokens += 0 if is_long else own
        self._waiting = left + self._waiting[looked_at:]
        return chosen, refused

    def _kind(self, row: LiveRow) -> PassKind | None:
        """None where its adapter cannot be applied: the row ends."""
        try:
            mixable = self._engine.retried(lambda: self._engine.adapters.mixable(row.job.adapter))
        except ModelError as error:  # its files changed or went since it was held
            row.fault = str(error)
            return None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            row.failed = True
            return None
        long = self._engine.is_long(len(row.job.prompt) + row.job.most)
        return PassKind(None if mixable else row.job.adapter, long)

    def _has_slot(self, row: LiveRow) -> bool:
        """Whether the row's adapter is in a slot, or takes one now in the place of an adapter that no row needs."""
        adapter = row.job.adapter
        if adapter is None or adapter in self._held:
            return not self._is_reserved(row)
        if adapter in self._slots[1:] or len(self._held) < len(self._slots):
            if is_whole(Path(adapter)) and any(is_whole(Path(other)) for other in self._held if other is not None):
                return False  # one network's weights are in memory at a time
            if adapter not in self._slots:
                free = min((i for i, name in enumerate(self._slots) if i and self._is_free(name)), key=self._is_taken)
                self._slots[free] = adapter
            self._held.add(adapter)
            return True
        return False

    def _is_free(self, name: str | None) -> bool:
        return name is None or name not in self._held

    def _is_taken(self, slot: int) -> bool:
        return self._slots[slot] is not None

    def _is_reserved(self, row: LiveRow) -> bool:
        """Whether a row that came before this one has waited for a slot for too long: slots must become free."""
        first = next((other for other in self._waiting if other.passed_over > _PASSED_OVER), None)
        return first is not None and row is not first and first.job.adapter not in self._held

    def _join(self, kind: PassKind, rows: list[LiveRow]) -> None:
        """Prefills the rows as a cohort of their own. The rest of a long prompt is read in later rounds."""
        engine, ready = self._engine, list[LiveRow]()
        families: dict[int, tuple[str | None, Prefix | None]] = {}
        for row in rows:
            tokens, adapter = row.tokens, row.job.adapter
            known = engine.known_of(adapter, tokens[:-1], long=kind.long)
            wanted = self._starts.known(adapter, tokens)
            self._starts.add(adapter, tokens)
            if not row.read:
                row.read, row.cached = True, min(known, wanted)
            chunk = tokens[: known + _JOINING]
            fits = 2 * len(chunk) * engine.cache_bytes_per_token <= engine.limits.prefix_bytes
            in_chunks = fits and len(tokens) - known > _JOINING
            if in_chunks and prefix_in_memory(engine, adapter, chunk, kind.long) is not None:
                self._starts.add(adapter, chunk)
                self._waiting.insert(0, row)
                continue
            prefix = prefix_in_memory(engine, adapter, tokens[:wanted], kind.long)
            families[id(row)] = (adapter, prefix)
            ready.append(row)
        if not ready:
            return
        jobs = [Job(row.tokens, max(1, row.job.most - len(row.answer)), adapter=row.job.adapter) for row in ready]
        of_jobs = [families[id(row)] for row in ready]
        apart = kind == _STATIC and engine.ways.takes("static", ANSWERS)
        shared = Families(partial(self.applied, kind), jobs, of_jobs, long=kind.long, apart=apart)
        with torch.inference_mode():
            cache, last, order = prefill(engine, jobs, list(range(len(jobs))), shared, room=_ROOM)
        self._cohorts.append(Cohort(kind, [ready[i] for i in order], cache, last))

    # ---- static steps -----------------------------------------------------------------------

    def _static_step(self) -> list[LiveRow]:
        """Hands cohorts over to static steps, as far as there is room, and computes a pass of all rows there. Returns
        rows that ended without their answer. Where such a step fails, the way is given up, and its rows wait again.
        """
        cohorts = [cohort for cohort in self._cohorts if cohort.kind == _STATIC and cohort.new]
        try:
            if not self._engine.ways.takes("static", ANSWERS):
                if self._static.rows:
                    self._waiting = self._static.close() + self._waiting
                return []
            with torch.inference_mode():
                left = self._static.join(cohorts)
                self._cohorts = [cohort for cohort in self._cohorts if cohort not in cohorts or cohort in left]
                self._waiting = self._static.read() + self._waiting
        except Exception as error:
            rows = [row for cohort in cohorts for row in cohort.rows]
            if isinstance(error, ModelError) or is_out_of_memory(error):
                return self._after(error, rows)
            self._engine.ways.give_up("static", first_line(error), of=ANSWERS)
            again = [row for row in dict.fromkeys([*self._static.close(), *rows]) if not row.ended]
            self._cohorts = [cohort for cohort in self._cohorts if cohort not in cohorts]
            self._waiting = again + self._waiting
        return []

    def _plain_pass(
        self, cache: RowCache, adapters: Sequence[str | None], new: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """As `static_cohort.PlainPass`."""
        with self.applied(_STATIC, [adapter for adapter, tokens in zip(adapters, new, strict=True) for _ in tokens]):
            return self._engine.read(cache, new)

    # ---- a step -----------------------------------------------------------------------------

    def _step(self, kind: PassKind, cohorts: list[Cohort]) -> None:
        cohorts = self._fewer(cohorts)
        ids, positions, adapters = list[int](), list[int](), list[str | None]()
        for cohort in cohorts:
            counts = [len(new) for new in cohort.new]
            cohort.cache.expect(counts)
            for row, new in zip(cohort.rows, cohort.new, strict=True):
                first = len(row.job.prompt) + len(row.answer) - len(new)
                ids += new
                positions += range(first, first + len(new))
                adapters += [row.job.adapter] * len(new)
        view = AllCohorts([cohort.cache for cohort in cohorts], [sum(map(len, c.new)) for c in cohorts], kind.long)
        with torch.inference_mode(), self.applied(kind, adapters):
            last = self._engine.forward(ids, positions, view)
        for cohort, part in zip(cohorts, last.split([len(cohort.rows) for cohort in cohorts]), strict=True):
            cohort.last, cohort.new = part, []

    def _keep_within_memory(self) -> None:
        """Answers grow, and with them the caches: where these are too large, rows wait again, those first that were
        read last. What they have written stays written: it is read again."""
        while self.running > 1 and self._cache_bytes > self._engine.limits.cache_bytes:
            rows = self._cohorts[-1].halved() if self._cohorts else self._static.halved()
            self._waiting = rows + self._waiting
            if self._cohorts and not self._cohorts[-1].rows:
                self._cohorts.pop()

    @property
    def _cache_bytes(self) -> int:
        return sum(cohort.cache.own_bytes for cohort in self._cohorts) + self._static.bytes

    def _fewer(self, cohorts: list[Cohort]) -> list[Cohort]:
        """At most `_COHORTS` of them, unless their caches would grow too large: those are joined first that waste the
        fewest columns. Removes the others from the list."""
        while len(cohorts) > _COHORTS:
            pairs = [(one.cache.bytes_to_join(two.cache), one, two) for one, two in combinations(cohorts, 2)]
            more, first, second = min(pairs, key=lambda pair: pair[0])
            if more > 0 and self._cache_bytes + more > self._engine.limits.cache_bytes:
                break
            first.join(second)
            cohorts.remove(second)
            self._cohorts.remove(second)
        return cohorts

    def applied(self, kind: PassKind, adapters: Sequence[str | None]) -> AbstractContextManager[None]:
        """Within: each token's adapter is applied. adapters: one a token."""
        engine = self._engine
        present = set(adapters)
        if kind.alone is not None:
            return engine.adapters.using(kind.alone)
        if present == {None}:
            return engine.adapters.using(None)
        place = {name: i for i, name in enumerate(self._slots) if i}
        return engine.adapters.mixed(self._slots, [place[a] if a is not None else 0 for a in adapters])

    def _after(self, error: Exception, rows: Sequence[LiveRow]) -> list[LiveRow]:
        """A pass with these rows failed: all cohorts are given up, and their rows wait again. What rows have written
        stays written: it is read again. Where memory ran out, fewer run at once.

        Returns rows that end: the one for which memory does not suffice even alone, those whose adapter cannot be
        applied any more, and those that have just got their last token. Raises the error where it is of another kind.
        """
        there = [row for cohort in self._cohorts for row in cohort.rows]
        there += [*self._static.clear(), *(row for row in rows if row not in self._waiting)]
        again = [row for row in dict.fromkeys(there) if not row.ended]  # one that was just handed over is there twice
        over = [row for row in dict.fromkeys(there) if row.ended and not row.dropped]  # by a token that nobody heard of
        gone: list[LiveRow] = []
        if isinstance(error, ModelError):
            gone = [row for row in again if row.job.adapter is not None and self._kind(row) is None]
            if not gone:
                raise error
        elif not is_out_of_memory(error):
            raise error
        self._cohorts = []
        self._waiting = [row for row in again if row not in gone] + self._waiting
        if gone:
            return over + gone
        traceback.clear_frames(error.__traceback__)  # what the failed pass holds
        self._engine.make_room()
        if len(again) > 1:
            most = max(1, min(self._limits.rows, len(again)) // 2)
            self._limits = self._shortage.lowered(self._limits, most, self._limits.cache_bytes)
        elif again and again[0].alone:
            again[0].failed = True
            self._waiting.remove(again[0])
            return over + again
        for row in again:
            row.alone = len(again) == 1  # once more: what was kept beside it is freed now
        return over

"""Prefill of many prompts: they are arranged by their prefixes, cut into batches, and each prefix is computed once.

Batches depend on the list of jobs and on the memory limits alone, so the same list gives the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from rung.engine.attention import KeysAndValues
from rung.engine.engine import Engine
from rung.engine.gpu_kernels import on_device
from rung.engine.grammar import Matcher
from rung.engine.kv_cache import RowCache, Shared
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import Node, Tree, common_prefix_length, grow
from rung.engine.tree_engine import Prefix, TreeEngine
from rung.engine.ways import ANSWERS

_LEAST_NODE = 32  # tokens
_LEAST_SAVED = 512  # tokens of a prefix that rows need not keep for themselves


@dataclass(frozen=True)
class Job:
    """One prompt to answer.

    most: new tokens at most. temperature 0: the likeliest token; otherwise tokens are sampled, with a generator of the
    job's own seed, from the likeliest ones that hold `top_p` of the chance. matcher: a grammar at its start; it is
    copied before use.
    """

    prompt: list[int]
    most: int
    temperature: float = 0.0
    seed: int = 0
    matcher: Matcher | None = None
    adapter: str | None = None
    top_p: float = 1.0


class SharedPrefixes:
    """The prefix that all prompts of one adapter share, computed once. Adapters stand in order of first use.

    Jobs of one adapter are a family. long: whether all rows with these prompts are long, as `Engine.is_long` says; else
    none may be.
    """

    apart = False
    """Whether prefixes stay apart from what rows keep for themselves, whatever that saves."""

    def __init__(
        self, engine: TreeEngine, adapters: Sequence[str | None], prompts: Sequence[list[int]], *, long: bool = False
    ) -> None:
        self.long = long
        self.adapters = list(dict.fromkeys(adapters))
        self.prefixes: dict[str | None, Prefix | None] = {}
        for adapter in self.adapters:
            own = [p for a, p in zip(adapters, prompts, strict=True) if a == adapter]
            self.prefixes[adapter] = prefix_in_memory(engine, adapter, own[0][: common_prefix_length(own)], long)
        self.in_order = [self.prefixes[adapter] for adapter in self.adapters]

    def own_part(self, job: Job) -> list[int]:
        """The tokens of a prompt behind the shared prefix."""
        prefix = self.in_order[self.family(job)]
        return job.prompt[len(prefix.ids) :] if prefix is not None else job.prompt

    def family(self, job: Job) -> int:
        """Number of the job's family."""
        return self.adapters.index(job.adapter)

    def length_of(self, adapter: str | None) -> int:
        prefix = self.prefixes[adapter]
        return len(prefix.ids) if prefix is not None else 0

    def applied(self, engine: TreeEngine, families: Sequence[int]) -> AbstractContextManager[None]:
        """Within: the adapters of a pass are applied. families: the family of each of its tokens."""
        present = sorted(set(families))
        if len(present) == 1:
            return engine.adapters.using(self.adapters[present[0]])
        return engine.adapters.mixed(self.adapters, families)


def prefix_in_memory(engine: TreeEngine, adapter: str | None, ids: list[int], long: bool) -> Prefix | None:
    """The prefix, from the cache or computed; None where it is empty or memory does not suffice for it.

    Without it every prompt is computed whole, in batches that are as small as memory demands.
    """
    if not ids:
        return None
    try:
        return engine.retried(lambda: engine.prefix(adapter, ids, long=long))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    engine.make_room()
    return None


def batches(engine: TreeEngine, jobs: Sequence[Job]) -> Iterator[tuple[list[int], SharedPrefixes]]:
    """Places of jobs that are answered together, and the prefixes that their prompts share."""
    for places, long in _mixable(engine, jobs):
        adapters, prompts = [jobs[i].adapter for i in places], [jobs[i].prompt for i in places]
        shared = SharedPrefixes(engine, adapters, prompts, long=long)
        own = {i: shared.own_part(jobs[i]) for i in places}
        order = sorted(places, key=lambda i: (shared.family(jobs[i]), own[i], i))
        for batch in cut(engine, jobs, {i: len(ids) for i, ids in own.items()}, order):
            yield batch, shared


def prefill(
    engine: TreeEngine, jobs: Sequence[Job], batch: list[int], shared: SharedPrefixes, *, room: int | None = None
) -> tuple[RowCache, torch.Tensor, list[int]]:
    """Computes the prompts of a batch, in parts where they are long, so that memory is bounded.

    room: new tokens that the cache has room for before it grows; None: all. Returns the KV cache of the rows, final
    hidden states of their last tokens, (B, C), and the batch in the order of the rows: depth first, so that rows behind
    one node are neighbours.
    """
    parts = [
        _prefill(engine, jobs, part, _read_ahead(engine, jobs[part[0]], shared) if len(part) == 1 else shared, room)
        for part in _parts(engine, jobs, batch, shared)
    ]
    while len(parts) > 1:  # neighbours by twos: less is copied than behind one that grows
        pairs, parts = [parts[i : i + 2] for i in range(0, len(parts), 2)], []
        for (cache, last, order), *others in pairs:
            for other, more, behind in others:
                cache.join(other)
                last, order = torch.cat([last, more]), order + behind
            parts.append((cache, last, order))
    return parts[0]


def _prefill(
    engine: TreeEngine, jobs: Sequence[Job], batch: list[int], shared: SharedPrefixes, room: int | None
) -> tuple[RowCache, torch.Tensor, list[int]]:
    """`prefill` in one pass."""
    tree = grow([shared.own_part(jobs[i]) for i in batch], families=[shared.family(jobs[i]) for i in batch])
    rows = sorted(range(len(batch)), key=lambda row: (tree.chains[row][-1], row))
    kept: list[KeysAndValues] = []
    ends = [tree.nodes[tree.chains[row][-1]] for row in rows]
    places = [node.start + node.length - 1 for node in ends]
    with shared.applied(engine, [node.family for node in tree.nodes for _ in range(node.length)]):
        last = engine.hidden_of(tree, shared.in_order, kept, places, long=shared.long)
    cache = _cache_of(engine, [jobs[i] for i in batch], shared, tree, rows, kept, room)
    return cache, last, [batch[row] for row in rows]


def _parts(engine: TreeEngine, jobs: Sequence[Job], batch: list[int], shared: SharedPrefixes) -> list[list[int]]:
    """The batch in parts that one pass reads; a row that is longer than that is one by itself."""
    families = {i: shared.family(jobs[i]) for i in batch}
    own = {i: shared.own_part(jobs[i]) for i in batch}
    present = {families[i]: shared.in_order[families[i]] for i in batch}
    most = engine.most_tokens(sum(len(prefix.ids) for prefix in present.values() if prefix is not None))
    if sum(map(len, own.values())) <= most:
        return [batch]
    parts: list[list[int]] = []
    tokens, before = 0, -1
    for i in sorted(batch, key=lambda i: (families[i], own[i], i)):
        alike = parts and families[i] == families[before]
        new = len(own[i]) - (common_prefix_length([own[before], own[i]]) if alike else 0)
        if not parts or tokens + new > most:
            parts.append([])
            tokens, new = 0, len(own[i])
        parts[-1].append(i)
        tokens, before = tokens + new, i
    return parts


def _read_ahead(engine: TreeEngine, job: Job, shared: SharedPrefixes) -> SharedPrefixes:
    """`shared`, or for a row that is too long for one pass what its last part stands behind."""
    family = shared.family(job)
    prefix = shared.in_order[family]
    known = len(prefix.ids) if prefix is not None else 0
    while len(job.prompt) - known > (most := engine.most_tokens(known)):
        known += most
        with shared.applied(engine, [family] * most):
            prefix = engine.compute(job.prompt[:known], after=prefix, long=shared.long)
    return shared if prefix is shared.in_order[family] or prefix is None else _ReadAhead(shared, family, prefix)


class _ReadAhead(SharedPrefixes):
    """One row, of which all but the last part was read. family: of the row in `shared`."""

    def __init__(self, shared: SharedPrefixes, family: int, prefix: Prefix) -> None:
        self.long, self.adapters, self.in_order = shared.long, [shared.adapters[family]], [prefix]
        self._shared, self._family = shared, family

    def family(self, job: Job) -> int:
        return 0

    def applied(self, engine: TreeEngine, families: Sequence[int]) -> AbstractContextManager[None]:
        return self._shared.applied(engine, [self._family] * len(families))


def _cache_of(
    engine: TreeEngine,
    jobs: Sequence[Job],
    shared: SharedPrefixes,
    tree: Tree,
    rows: list[int],
    kept: list[KeysAndValues],
    new: int | None,
) -> RowCache:
    """The KV cache of a batch. rows: of the tree, in the cache's order. kept: of the tree's tokens; emptied.

    Nodes and prefixes of several rows are stored once; those of one row or of few tokens go into the rows' own cache.
    """
    device = engine.device
    chains = [[tree.nodes[i] for i in tree.chains[row]] for row in rows]
    alone = [[node for node in chain if not _stored_once(node)] for chain in chains]
    copied, behind = _prefixes_of_rows(shared, [chain[-1].family for chain in chains])
    before = np.array([len(prefix.ids) if prefix is not None else 0 for prefix in copied], dtype=np.int64)
    own = np.array([sum(node.length for node in nodes) for nodes in alone], dtype=np.int64)
    lengths = before + own
    ends = [len(jobs[row].prompt) for row in rows]
    most = max(job.most for job in jobs)
    room = int(lengths.max()) + (most if new is None else min(new, most))
    known = [len(prefix.ids) if prefix is not None else 0 for prefix in shared.in_order]
    positions = tree.positions(known)
    for (first, stop), tokens in _stretches(tree, rows).items():
        wanted = on_device(torch.tensor(tokens), device)
        heads_first = [(k[wanted].transpose(0, 1)[None], v[wanted].transpose(0, 1)[None]) for k, v in kept]
        behind.append(Shared(heads_first, [positions[token] for token in tokens], first, stop))
    starts = np.array([node.start + i for nodes in alone for node in nodes for i in range(node.length)], dtype=np.int64)
    of_rows, columns = np.repeat(np.arange(len(rows)), own), _counted(own) + np.repeat(before, own)
    of_prefixes, in_prefixes = np.repeat(np.arange(len(rows)), before), _counted(before)
    # New tokens follow each other; what stands before them in the row's own columns may have gaps.
    of_columns = np.arange(room) + (np.array(ends) - lengths)[:, None]
    of_columns[of_rows, columns] = np.array(positions)[starts]
    of_columns[of_prefixes, in_prefixes] = in_prefixes
    given = [lengths, of_columns, np.stack([starts, of_rows, columns]), np.stack([of_prefixes, in_prefixes])]
    filled, places, own_places, prefix_places = (on_device(torch.from_numpy(part), device) for part in given)
    cache = RowCache(filled, room, behind, places, ends, shared.long, lengths.tolist())
    for layer in range(len(kept)):
        key, value = kept.pop(0)  # one by one: both copies of all layers need not fit
        cache.hold(layer, key[own_places[0]], value[own_places[0]], own_places[1], own_places[2])
        if len(in_prefixes):
            keys, values = zip(*(prefix.layers[layer] for prefix in copied if prefix is not None), strict=True)
            cache.hold(layer, torch.cat(keys), torch.cat(values), prefix_places[0], prefix_places[1])
    return cache


def _prefixes_of_rows(shared: SharedPrefixes, families: Sequence[int]) -> tuple[list[Prefix | None], list[Shared]]:
    """For each row the prefix that it keeps in its own cache, if any; and the prefixes that are stored once.

    families: of the rows, those of one family side by side. Each shared prefix costs a few operations a layer and
    decode step, which one row, or few rows with a short prefix, do not bring in again.
    """
    copied: list[Prefix | None] = [None] * len(families)
    behind: list[Shared] = []
    for family, prefix in enumerate(shared.in_order):
        mine = [i for i, other in enumerate(families) if other == family]
        if prefix is None or not mine:
            continue
        if not shared.apart and (len(mine) - 1) * len(prefix.ids) < _LEAST_SAVED:
            copied[mine[0] : mine[-1] + 1] = [prefix] * len(mine)
        else:
            heads_first = [(k.transpose(0, 1)[None], v.transpose(0, 1)[None]) for k, v in prefix.layers]
            behind.append(Shared(heads_first, range(len(prefix.ids)), mine[0], mine[-1] + 1))
    return copied, behind


def _counted(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, … up to each of the lengths, one behind the other."""
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


def _mixable(engine: TreeEngine, jobs: Sequence[Job]) -> list[tuple[list[int], bool]]:
    """Places of jobs that may share a batch, and whether these are long.

    All jobs with plain adapters may, any other adapter stands by itself; long and short rows never share one.
    """
    adapters = dict.fromkeys(job.adapter for job in jobs)
    mixable = {adapter: engine.retried(partial(engine.adapters.mixable, adapter)) for adapter in adapters}
    groups: dict[tuple[str | None, bool], list[int]] = {}
    for i, job in enumerate(jobs):
        long = engine.is_long(len(job.prompt) + job.most)
        groups.setdefault((None if mixable[job.adapter] else job.adapter, long), []).append(i)
    return [(places, long) for (_, long), places in groups.items()]


def cut(engine: Engine, jobs: Sequence[Job], lengths: dict[int, int], order: list[int]) -> Iterator[list[int]]:
    """As many rows together as the limits allow. lengths: tokens of each prompt behind the shared prefix.

    What is free is asked for every batch: it changes when memory runs out, and when others take or free some.
    """
    batch: list[int] = []
    longest = new = 0
    room = engine.room_bytes() // counted_bytes(engine)
    for i in order:
        longest, new = max(longest, lengths[i]), max(new, jobs[i].most)
        if batch and (len(batch) >= engine.limits.rows or (len(batch) + 1) * (longest + new) > room):
            yield batch
            batch, longest, new = [], lengths[i], jobs[i].most
            room = engine.room_bytes() // counted_bytes(engine)
        batch.append(i)
    if batch:
        yield batch


def counted_bytes(engine: Engine) -> int:
    """Bytes that the limits count for each token that the rows of a batch keep.

    Static steps copy them into buffers of a few sizes, up to half as large again. A batch that leaves no room for these
    would be answered in plain passes, which take many times as long.
    """
    twice = isinstance(engine, TreeEngine) and engine.ways.takes("static", ANSWERS)
    return int(engine.cache_bytes_per_token) * (2 if twice else 1)


def _stored_once(node: Node) -> bool:
    """Whether rows share one copy of a node's keys. Each shared node costs a few operations a layer and decode step."""
    return node.rows > 1 and node.length >= _LEAST_NODE


def _stretches(tree: Tree, rows: list[int]) -> dict[tuple[int, int], list[int]]:
    """Packed places of tokens that several rows share, by (first row, row behind the last) in that order of rows."""
    reach: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        for i in tree.chains[row]:
            if _stored_once(tree.nodes[i]):
                reach.setdefault(i, []).append(place)
    found: dict[tuple[int, int], list[int]] = {}
    for i, places in sorted(reach.items()):
        node = tree.nodes[i]
        found.setdefault((places[0], places[-1] + 1), []).extend(range(node.start, node.start + node.length))
    return found

"""Prompts of many jobs, arranged by what they begin with: cut into batches, each beginning computed once.

Batches depend on the list of jobs and the memory alone, so the same list gives the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from rung.engine.attention import KeysAndValues, RowCache
from rung.engine.engine import Beginning, Engine
from rung.engine.grammar import Matcher
from rung.engine.prefix_tree import Node, Tree, common_beginning, grow

_LEAST_NODE = 32  # tokens


@dataclass(frozen=True)
class Job:
    """One prompt to answer. temperature 0: the likeliest token; else sampled with that seed, by itself."""

    prompt: list[int]
    most: int
    temperature: float = 0.0
    seed: int = 0
    matcher: Matcher | None = None
    adapter: str | None = None


class Shared:
    """What all prompts of each adapter begin with, computed once. Adapters stand in order of first use."""

    def __init__(self, engine: Engine, adapters: Sequence[str | None], prompts: Sequence[list[int]]) -> None:
        self.adapters = list(dict.fromkeys(adapters))
        self.beginnings: dict[str | None, Beginning | None] = {}
        for adapter in self.adapters:
            mine = [p for a, p in zip(adapters, prompts, strict=True) if a == adapter]
            length = common_beginning(mine)
            self.beginnings[adapter] = engine.beginning(adapter, mine[0][:length]) if length else None
        self.in_order = [self.beginnings[adapter] for adapter in self.adapters]

    def own_part(self, job: Job) -> list[int]:
        """The tokens of a prompt behind what is shared."""
        return job.prompt[self.length_of(job.adapter) :]

    def family(self, adapter: str | None) -> int:
        return self.adapters.index(adapter)

    def length_of(self, adapter: str | None) -> int:
        beginning = self.beginnings[adapter]
        return len(beginning.ids) if beginning is not None else 0

    def applied(self, engine: Engine, families: Sequence[int]) -> AbstractContextManager[None]:
        """The adapters of a pass. families: of each of its tokens."""
        present = sorted(set(families))
        if len(present) == 1:
            return engine.adapters.using(self.adapters[present[0]])
        return engine.adapters.mixed(self.adapters, torch.tensor(families, device=engine.device))


def batches(engine: Engine, jobs: Sequence[Job]) -> Iterator[tuple[list[int], Shared]]:
    """Places of jobs that are answered together, and what their prompts share."""
    for places in _mixable(engine, jobs):
        shared = Shared(engine, [jobs[i].adapter for i in places], [jobs[i].prompt for i in places])
        own = {i: shared.own_part(jobs[i]) for i in places}
        order = sorted(places, key=lambda i: (shared.family(jobs[i].adapter), own[i], i))
        for batch in _cut(engine, jobs, {i: len(ids) for i, ids in own.items()}, order):
            yield batch, shared


def read_prompts(
    engine: Engine, jobs: Sequence[Job], batch: list[int], shared: Shared
) -> tuple[RowCache, torch.Tensor, list[int]]:
    """Computes the prompts of a batch. Returns the rows' cache, final hidden states of their last tokens (B, C), and
    the batch in the order of those rows: depth first, so that rows behind one node are neighbours."""
    tree = grow([shared.own_part(jobs[i]) for i in batch], families=[shared.family(jobs[i].adapter) for i in batch])
    rows = sorted(range(len(batch)), key=lambda row: (tree.chains[row][-1], row))
    kept: list[KeysAndValues] = []
    ends = [tree.nodes[tree.chains[row][-1]] for row in rows]
    places = [node.start + node.length - 1 for node in ends]
    with shared.applied(engine, [node.family for node in tree.nodes for _ in range(node.length)]):
        last = engine.hidden_of(tree, shared.in_order, kept, places)

    # Nodes of several rows are kept once, those of one row or of few tokens in the rows' own cache.
    chains = [[tree.nodes[i] for i in tree.chains[row]] for row in rows]
    alone = [[node for node in chain if not _kept_once(node)] for chain in chains]
    lengths = [sum(node.length for node in nodes) for nodes in alone]
    room = max(lengths) + max(jobs[i].most for i in batch)
    stretches = _stretches(tree, rows)
    behind: list[tuple[list[KeysAndValues], int, int]] = []
    for family, beginning in enumerate(shared.in_order):
        if beginning is not None and (mine := [i for i, node in enumerate(ends) if node.family == family]):
            heads_first = [(k.transpose(0, 1)[None], v.transpose(0, 1)[None]) for k, v in beginning.layers]
            behind.append((heads_first, mine[0], mine[-1] + 1))
    for (first, stop), tokens in stretches.items():
        heads_first = [(k[tokens].transpose(0, 1)[None], v[tokens].transpose(0, 1)[None]) for k, v in kept]
        behind.append((heads_first, first, stop))
    cache = RowCache(torch.tensor(lengths, device=engine.device), room, behind)
    starts = [node.start + i for nodes in alone for node in nodes for i in range(node.length)]
    taken = torch.tensor(starts, dtype=torch.long, device=engine.device)
    columns = torch.tensor([i for n in lengths for i in range(n)], dtype=torch.long, device=engine.device)
    of_rows = torch.arange(len(rows), device=engine.device).repeat_interleave(cache.lengths)
    for layer in range(len(kept)):
        key, value = kept.pop(0)  # one by one: both copies of all layers need not fit
        cache.hold(layer, key[taken], value[taken], of_rows, columns)
    return cache, last, [batch[row] for row in rows]


def _mixable(engine: Engine, jobs: Sequence[Job]) -> list[list[int]]:
    """Places of jobs that may share a batch: all with plain adapters together, any other adapter by itself."""
    groups: dict[str | None, list[int]] = {}
    for i, job in enumerate(jobs):
        groups.setdefault(None if engine.adapters.mixable(job.adapter) else job.adapter, []).append(i)
    return list(groups.values())


def _cut(engine: Engine, jobs: Sequence[Job], lengths: dict[int, int], order: list[int]) -> Iterator[list[int]]:
    """As many rows together as the memory for their keys and values holds. lengths: own tokens of each prompt."""
    room = engine.limits.cache_bytes // engine.cache_bytes_per_token
    most = engine.limits.rows
    batch: list[int] = []
    longest = new = 0
    for i in order:
        longest, new = max(longest, lengths[i]), max(new, jobs[i].most)
        if batch and (len(batch) == most or (len(batch) + 1) * (longest + new) > room):
            yield batch
            batch, longest, new = [], lengths[i], jobs[i].most
        batch.append(i)
    if batch:
        yield batch


def _kept_once(node: Node) -> bool:
    """Whether rows look at one copy of a node's keys: every one costs some steps a layer for each token."""
    return node.rows > 1 and node.length >= _LEAST_NODE


def _stretches(tree: Tree, rows: list[int]) -> dict[tuple[int, int], list[int]]:
    """Packed places of tokens that several rows share, by (first row, behind the last row) in that order of rows."""
    reach: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        for i in tree.chains[row]:
            if _kept_once(tree.nodes[i]):
                reach.setdefault(i, []).append(place)
    found: dict[tuple[int, int], list[int]] = {}
    for i, places in sorted(reach.items()):
        node = tree.nodes[i]
        found.setdefault((places[0], places[-1] + 1), []).extend(range(node.start, node.start + node.length))
    return found

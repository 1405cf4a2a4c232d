"""Answers to many prompts: arranged by what they begin with, decoded together, leaving when they are done.

Batches depend on the list of jobs alone, so the same list gives the same answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from rung.models.attention import KeysAndValues, RowCache
from rung.models.engine import Beginning, Engine
from rung.models.grammar import Matcher
from rung.models.tree import Tree, common_beginning, grow

_LOGITS_ROWS = 256  # tokens whose logits are held at once


@dataclass(frozen=True)
class Job:
    """One prompt to answer. temperature 0: the likeliest token; else sampled with that seed, by itself."""

    prompt: list[int]
    most: int
    temperature: float = 0.0
    seed: int = 0
    matcher: Matcher | None = None
    adapter: str | None = None


def decode(engine: Engine, jobs: Sequence[Job], stop_ids: Collection[int]) -> Iterator[list[tuple[int, list[int]]]]:
    """Batch after batch, each row's place in `jobs` and its answer's tokens, the end token among them when it came."""
    for places in _mixable(engine, jobs):
        shared = _Shared(engine, [jobs[i].adapter for i in places], [jobs[i].prompt for i in places])
        own = {i: jobs[i].prompt[shared.length_of(jobs[i].adapter) :] for i in places}
        for batch in _batches(
            engine, jobs, own, sorted(places, key=lambda i: (shared.family(jobs[i].adapter), own[i], i))
        ):
            with torch.inference_mode():
                cache, last, order = _prompts(engine, jobs, own, batch, shared)
                rows = [jobs[i] for i in order]
                yield list(zip(order, _answer(engine, rows, cache, last, shared, set(stop_ids)), strict=True))


def logprobs(engine: Engine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Log-probability of each token of each answer, given its prompt. rows: (prompt, answer) ids.

    Rows with one prompt share it, and answers that begin alike share that too: all labels of a set are
    scored in one pass over their tree.
    """
    if not rows:
        return []
    shared = _Shared(engine, [adapter] * len(rows), [prompt for prompt, _ in rows])
    known = shared.length_of(adapter)
    whole = [prompt[known:] + answer[:-1] for prompt, answer in rows]
    order = sorted(range(len(rows)), key=lambda i: (whole[i], i))
    found: list[list[float]] = [[] for _ in rows]
    limit = engine.limits.scored_tokens
    with engine.adapters.using(adapter), torch.inference_mode():
        while order:
            part, tokens = 0, 0
            while part < len(order):
                own = whole[order[part]]
                alike = common_beginning([whole[order[part - 1]], own]) if part else 0
                if part and tokens + len(own) - alike > limit:
                    break
                tokens += len(own) - alike
                part += 1
            chosen, order = order[:part], order[part:]
            tree = grow([whole[i] for i in chosen])
            wanted: dict[int, list[tuple[int, int, int]]] = {}  # packed place -> (row, number in its answer, token)
            for row, i in enumerate(chosen):
                prompt, answer = rows[i]
                first = len(prompt) - known - 1
                found[i] = [0.0] * len(answer)
                for number, place in enumerate(tree.places(row, first, first + len(answer))):
                    wanted.setdefault(place, []).append((i, number, answer[number]))
            places = list(wanted)
            hidden = engine.hidden_of(tree, shared.in_order, wanted=places)
            for start in range(0, len(places), _LOGITS_ROWS):
                chances = torch.log_softmax(engine.logits(hidden[start : start + _LOGITS_ROWS]), -1)
                for at, place in enumerate(places[start : start + _LOGITS_ROWS]):
                    for i, number, token in wanted[place]:
                        found[i][number] = float(chances[at, token])
    return found


class _Shared:
    """What all prompts of each adapter begin with, computed once. Adapters stand in order of first use."""

    def __init__(self, engine: Engine, adapters: Sequence[str | None], prompts: Sequence[list[int]]) -> None:
        self.adapters = list(dict.fromkeys(adapters))
        self.beginnings: dict[str | None, Beginning | None] = {}
        for adapter in self.adapters:
            mine = [p for a, p in zip(adapters, prompts, strict=True) if a == adapter]
            length = common_beginning(mine)
            self.beginnings[adapter] = engine.beginning(adapter, mine[0][:length]) if length else None
        self.in_order = [self.beginnings[adapter] for adapter in self.adapters]

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


def _mixable(engine: Engine, jobs: Sequence[Job]) -> list[list[int]]:
    """Places of jobs that may share a batch: all with plain adapters together, any other adapter by itself."""
    groups: dict[str | None, list[int]] = {}
    for i, job in enumerate(jobs):
        groups.setdefault(None if engine.adapters.mixable(job.adapter) else job.adapter, []).append(i)
    return list(groups.values())


def _batches(engine: Engine, jobs: Sequence[Job], own: dict[int, list[int]], order: list[int]) -> Iterator[list[int]]:
    """As many rows together as the memory for their keys and values holds."""
    room = engine.limits.cache_bytes // engine.cache_bytes_per_token
    most = engine.limits.rows
    batch: list[int] = []
    longest = new = 0
    for i in order:
        longest, new = max(longest, len(own[i])), max(new, jobs[i].most)
        if batch and (len(batch) == most or (len(batch) + 1) * (longest + new) > room):
            yield batch
            batch, longest, new = [], len(own[i]), jobs[i].most
        batch.append(i)
    if batch:
        yield batch


def _prompts(
    engine: Engine, jobs: Sequence[Job], own: dict[int, list[int]], batch: list[int], shared: _Shared
) -> tuple[RowCache, torch.Tensor, list[int]]:
    """Computes the prompts of a batch. Returns the rows' cache, final hidden states of their last tokens (B, C), and
    the batch in the order of those rows: depth first, so that rows behind one node are neighbours."""
    tree = grow([own[i] for i in batch], families=[shared.family(jobs[i].adapter) for i in batch])
    rows = sorted(range(len(batch)), key=lambda row: (tree.chains[row][-1], row))
    kept: list[KeysAndValues] = []
    ends = [tree.nodes[tree.chains[row][-1]] for row in rows]
    places = [node.start + node.length - 1 for node in ends]
    with shared.applied(engine, [node.family for node in tree.nodes for _ in range(node.length)]):
        last = engine.hidden_of(tree, shared.in_order, kept, places)

    # Nodes of several rows are kept once, those of one row in the row's own cache.
    alone = [[node for node in (tree.nodes[i] for i in tree.chains[row]) if node.rows == 1] for row in rows]
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
    for layer, (key, value) in enumerate(kept):
        cache.hold(layer, key[taken], value[taken], of_rows, columns)
    return cache, last, [batch[row] for row in rows]


def _stretches(tree: Tree, rows: list[int]) -> dict[tuple[int, int], list[int]]:
    """Packed places of tokens that several rows share, by (first row, behind the last row) in that order of rows."""
    reach: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        for i in tree.chains[row]:
            if tree.nodes[i].rows > 1:
                reach.setdefault(i, []).append(place)
    found: dict[tuple[int, int], list[int]] = {}
    for i, places in sorted(reach.items()):
        node = tree.nodes[i]
        found.setdefault((places[0], places[-1] + 1), []).extend(range(node.start, node.start + node.length))
    return found


def _answer(
    engine: Engine, jobs: list[Job], cache: RowCache, last: torch.Tensor, shared: _Shared, stop_ids: set[int]
) -> list[list[int]]:
    """Tokens of each row's answer. last: final hidden states of the prompts' last tokens, (B, C).

    Where a grammar leaves one way only, its tokens are taken without being asked for, several in one step.
    """
    answers: list[list[int]] = [[] for _ in jobs]
    generators = [_generator(job) for job in jobs]
    active = list(range(len(jobs)))  # rows of the cache -> places in jobs
    begun = [len(job.prompt) for job in jobs]
    while True:
        chosen = _choose(engine.logits(last), [jobs[i] for i in active], [generators[i] for i in active])
        new: list[list[int]] = []
        for place, token in zip(active, chosen, strict=True):
            tokens = [token, *_forced(jobs[place], token, stop_ids)][: jobs[place].most - len(answers[place])]
            answers[place] += tokens
            new.append(tokens)
        going = [
            row
            for row, place in enumerate(active)
            if answers[place][-1] not in stop_ids and len(answers[place]) < jobs[place].most
        ]
        if not going:
            return answers
        if len(going) < len(active):
            cache.keep_rows(going)
            active, new = [active[row] for row in going], [new[row] for row in going]
        counts = [len(tokens) for tokens in new]
        positions = [
            begun[place] + len(answers[place]) - count + i
            for place, count in zip(active, counts, strict=True)
            for i in range(count)
        ]
        cache.expect(counts)
        families = [
            shared.family(jobs[place].adapter) for place, n in zip(active, counts, strict=True) for _ in range(n)
        ]
        with shared.applied(engine, families):
            last = engine.forward([token for tokens in new for token in tokens], positions, cache)


def _forced(job: Job, token: int, stop_ids: set[int]) -> list[int]:
    """Tells the grammar what was chosen; the tokens it leaves no choice about."""
    if job.matcher is None or token in stop_ids:
        return []
    job.matcher.consume(token)
    return job.matcher.forced()


def _generator(job: Job) -> torch.Generator | None:
    return torch.Generator().manual_seed(job.seed) if job.temperature > 0 else None


def _choose(logits: torch.Tensor, jobs: list[Job], generators: list[torch.Generator | None]) -> list[int]:
    """The next token of each row. logits: (B, V)."""
    if ruled := [row for row, job in enumerate(jobs) if job.matcher is not None]:
        allowed = np.stack([matcher.allowed() for row in ruled if (matcher := jobs[row].matcher) is not None])
        masked = logits[ruled].masked_fill_(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
        logits = logits.index_copy(0, torch.tensor(ruled, device=logits.device), masked)
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, (job, generator) in enumerate(zip(jobs, generators, strict=True)):
        if generator is not None:
            weights = torch.softmax(logits[row].cpu() / job.temperature, dim=-1)
            tokens[row] = int(torch.multinomial(weights, 1, generator=generator))
    return tokens

"""Decode steps of many answers together, and log-probabilities of given answers.

Rows leave the batch when their answer ends. When memory runs out, a batch is answered in halves, down to one row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from rung.engine.grammar import Matcher
from rung.engine.kv_cache import RowCache
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefill import Job as Job
from rung.engine.prefill import SharedPrefixes, batches, prefill
from rung.engine.prefix_tree import common_prefix_length, grow
from rung.engine.tree_engine import TreeEngine

_LOGITS_ROWS = 256  # tokens whose logits are held at once

Answered = list[tuple[int, list[int] | None]]
"""Places in the list of jobs, with the tokens of each answer; None where memory does not suffice for that row alone."""


def decode(engine: TreeEngine, jobs: Sequence[Job], stop_ids: Collection[int]) -> Iterator[Answered]:
    """Answers batch after batch. An answer's tokens include its end token where it ended by one.

    When memory runs out, the batch is answered in halves, and later batches are smaller until enough of them worked.
    """
    stops = set(stop_ids)
    for batch, shared in batches(engine, jobs):
        parts, worked, failed = [batch], list[list[int]](), list[list[int]]()
        while parts:
            part = parts.pop(0)
            answered = _in_memory(engine, jobs, part, shared, stops)
            if answered is not None:
                worked.append(part)
                yield answered
                continue
            failed.append(part)
            engine.make_room()
            if len(part) == 1:
                yield [(part[0], None)]
            else:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
        _adapt_limits(engine, jobs, worked, failed, shared)


def _in_memory(
    engine: TreeEngine, jobs: Sequence[Job], batch: list[int], shared: SharedPrefixes, stops: set[int]
) -> Answered | None:
    """The answers of one batch; None when memory ran out. On return the failed pass holds no memory any more."""
    try:
        return _answer_batch(engine, jobs, batch, shared, stops)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _adapt_limits(
    engine: TreeEngine, jobs: Sequence[Job], worked: list[list[int]], failed: list[list[int]], shared: SharedPrefixes
) -> None:
    """Lowers the limits after a batch that did not fit: in rows where they cut it, else in bytes; or raises them again.

    worked, failed: parts of the batch. Later batches are as small as the largest part that worked or half the smallest
    that failed, whichever is more. A row that does not fit even alone explains the failure of every part with it, so
    that these parts say nothing of the limits.
    """

    def needs(part: list[int]) -> int:
        """Bytes that the limits count for the KV cache of these rows."""
        longest = max(len(shared.own_part(jobs[i])) for i in part) + max(jobs[i].most for i in part)
        return len(part) * longest * int(engine.cache_bytes_per_token)

    alone = {part[0] for part in failed if len(part) == 1}
    too_large = [part for part in failed if alone.isdisjoint(part)]
    if not failed:
        (batch,) = worked
        engine.limits = engine.shortage.after_success(engine.limits, len(batch), needs(batch))
    elif too_large and worked:
        largest, smallest = max(worked, key=len), min(too_large, key=needs)
        by_rows = len(max(too_large, key=len)) >= engine.limits.rows
        rows = max(len(largest), len(smallest) // 2) if by_rows else engine.limits.rows
        engine.limits = engine.shortage.lowered(engine.limits, rows, max(needs(largest), needs(smallest) // 2))


@torch.inference_mode()
def _answer_batch(
    engine: TreeEngine, jobs: Sequence[Job], batch: list[int], shared: SharedPrefixes, stop_ids: set[int]
) -> Answered:
    """One batch of `decode`. Its KV cache is freed before the prefill of the next one."""
    cache, last, order = prefill(engine, jobs, batch, shared)
    answers = _answer(engine, [jobs[i] for i in order], cache, last, shared, stop_ids)
    return list(zip(order, answers, strict=True))


def logprobs(engine: TreeEngine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Log-probability of each token of each answer, given its prompt. rows: (prompt, answer) ids.

    Rows with one prompt share it, and answers with a common prefix share that too: all labels of a set are scored in
    one pass over their tree. When memory runs out, fewer tokens go through the network at once.
    """
    if not rows:
        return []
    shared = SharedPrefixes(engine, [adapter] * len(rows), [prompt for prompt, _ in rows])
    known = shared.length_of(adapter)
    whole = [prompt[known:] + answer[:-1] for prompt, answer in rows]
    order = sorted(range(len(rows)), key=lambda i: (whole[i], i))
    found: list[list[float]] = [[] for _ in rows]
    limit = engine.limits.scored_tokens
    while order:
        chosen, tokens = _next_part(whole, order, limit)
        try:
            _score(engine, adapter, rows, whole, chosen, known, shared, found)
        except Exception as error:
            if not is_out_of_memory(error) or len(chosen) == 1:
                raise
        else:
            order = order[len(chosen) :]
            continue
        engine.make_room()
        limit = tokens // 2
    return found


def _next_part(whole: list[list[int]], order: list[int], limit: int) -> tuple[list[int], int]:
    """The first rows of `order` that bring at most `limit` tokens, at least one row; and the tokens they bring."""
    part, tokens = 0, 0
    while part < len(order):
        own = whole[order[part]]
        shared = common_prefix_length([whole[order[part - 1]], own]) if part else 0
        if part and tokens + len(own) - shared > limit:
            break
        tokens += len(own) - shared
        part += 1
    return order[:part], tokens


@torch.inference_mode()
def _score(
    engine: TreeEngine,
    adapter: str | None,
    rows: Sequence[tuple[list[int], list[int]]],
    whole: list[list[int]],
    chosen: list[int],
    known: int,
    shared: SharedPrefixes,
    found: list[list[float]],
) -> None:
    """Fills `found` for the chosen rows. known: tokens of the shared prefix."""
    tree = grow([whole[i] for i in chosen])
    wanted: dict[int, list[tuple[int, int, int]]] = {}  # packed place -> (row, number in its answer, token)
    for row, i in enumerate(chosen):
        prompt, answer = rows[i]
        first = len(prompt) - known - 1
        found[i] = [0.0] * len(answer)
        for number, place in enumerate(tree.places(row, first, first + len(answer))):
            wanted.setdefault(place, []).append((i, number, answer[number]))
    places = list(wanted)
    with engine.adapters.using(adapter):
        hidden = engine.hidden_of(tree, shared.in_order, wanted=places)
    for start in range(0, len(places), _LOGITS_ROWS):
        chances = torch.log_softmax(engine.logits(hidden[start : start + _LOGITS_ROWS]), -1)
        for at, place in enumerate(places[start : start + _LOGITS_ROWS]):
            for i, number, token in wanted[place]:
                found[i][number] = float(chances[at, token])


def _answer(
    engine: TreeEngine, jobs: list[Job], cache: RowCache, last: torch.Tensor, shared: SharedPrefixes, stop_ids: set[int]
) -> list[list[int]]:
    """Tokens of each row's answer. last: final hidden states of the prompts' last tokens, (B, C).

    Where a grammar allows one continuation only, its tokens are taken over without a decode step for each.
    """
    answers: list[list[int]] = [[] for _ in jobs]
    generators = [_generator(job) for job in jobs]
    matchers = [job.matcher.copy() if job.matcher is not None else None for job in jobs]
    active = list(range(len(jobs)))  # rows of the cache -> places in jobs
    while True:
        chosen = _choose(
            engine.logits(last),
            [jobs[i].temperature for i in active],
            [generators[i] for i in active],
            [matchers[i] for i in active],
        )
        new: list[list[int]] = []
        for place, token in zip(active, chosen, strict=True):
            tokens = [token, *_forced(matchers[place], token, stop_ids)][: jobs[place].most - len(answers[place])]
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
            len(jobs[place].prompt) + len(answers[place]) - count + i
            for place, count in zip(active, counts, strict=True)
            for i in range(count)
        ]
        cache.expect(counts)
        families = [
            shared.family(jobs[place].adapter) for place, n in zip(active, counts, strict=True) for _ in range(n)
        ]
        with shared.applied(engine, families):
            last = engine.forward([token for tokens in new for token in tokens], positions, cache)


def _forced(matcher: Matcher | None, token: int, stop_ids: set[int]) -> list[int]:
    """Gives the chosen token to the grammar; returns the tokens that can only follow."""
    if matcher is None or token in stop_ids:
        return []
    matcher.consume(token)
    return matcher.forced()


def _generator(job: Job) -> torch.Generator | None:
    return torch.Generator().manual_seed(job.seed) if job.temperature > 0 else None


def _choose(
    logits: torch.Tensor,
    temperatures: Sequence[float],
    generators: Sequence[torch.Generator | None],
    matchers: Sequence[Matcher | None],
) -> list[int]:
    """The next token of each row. logits: (B, V)."""
    if ruled := [row for row, matcher in enumerate(matchers) if matcher is not None]:
        allowed = np.stack([matcher.allowed() for matcher in matchers if matcher is not None])
        masked = logits[ruled].masked_fill_(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
        logits = logits.index_copy(0, torch.tensor(ruled, device=logits.device), masked)
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, (temperature, generator) in enumerate(zip(temperatures, generators, strict=True)):
        if generator is not None:
            weights = torch.softmax(logits[row].cpu() / temperature, dim=-1)
            tokens[row] = int(torch.multinomial(weights, 1, generator=generator))
    return tokens

"""Answers to many prompts, decoded together, leaving when they are done; log-probabilities of given answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from rung.engine.attention import RowCache
from rung.engine.engine import Engine
from rung.engine.prefill import Job as Job
from rung.engine.prefill import Shared, batches, read_prompts
from rung.engine.prefix_tree import common_beginning, grow

_LOGITS_ROWS = 256  # tokens whose logits are held at once


def decode(engine: Engine, jobs: Sequence[Job], stop_ids: Collection[int]) -> Iterator[list[tuple[int, list[int]]]]:
    """Batch after batch, each row's place in `jobs` and its answer's tokens, the end token among them when it came."""
    for batch, shared in batches(engine, jobs):
        yield _answer_batch(engine, jobs, batch, shared, set(stop_ids))


@torch.inference_mode()
def _answer_batch(
    engine: Engine, jobs: Sequence[Job], batch: list[int], shared: Shared, stop_ids: set[int]
) -> list[tuple[int, list[int]]]:
    """One batch of `decode`; its cache is gone when the prompts of the next one are read."""
    cache, last, order = read_prompts(engine, jobs, batch, shared)
    return list(zip(order, _answer(engine, [jobs[i] for i in order], cache, last, shared, stop_ids), strict=True))


def logprobs(engine: Engine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Log-probability of each token of each answer, given its prompt. rows: (prompt, answer) ids.

    Rows with one prompt share it, and answers that begin alike share that too: all labels of a set are
    scored in one pass over their tree.
    """
    if not rows:
        return []
    shared = Shared(engine, [adapter] * len(rows), [prompt for prompt, _ in rows])
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


def _answer(
    engine: Engine, jobs: list[Job], cache: RowCache, last: torch.Tensor, shared: Shared, stop_ids: set[int]
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

"""What the two ways to answer have in common: a batch of jobs, the choice of the next token, and scoring in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rung.engine.engine import Engine
from rung.engine.grammar import Matcher
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefill import Job

Answered = list[tuple[int, list[int] | None]]
"""Places in the list of jobs, with the tokens of each answer; None where memory does not suffice for that row alone."""
_COLDEST = 1e-6  # a temperature far below it would be rounded to zero


@dataclass(frozen=True)
class Batch:
    """Jobs that are answered together.

    places: in the list of jobs. lengths: for each of these places, the prompt's tokens that its row keeps in the cache.
    answer: answers some of these places.
    """

    places: list[int]
    lengths: dict[int, int]
    answer: Callable[[list[int]], Answered]


def generator_of(job: Job) -> torch.Generator | None:
    """Draws the tokens of a job's answer; None where the likeliest token is taken."""
    return torch.Generator().manual_seed(job.seed) if job.temperature > 0 else None


def choose(
    logits: torch.Tensor,
    temperatures: Sequence[float],
    generators: Sequence[torch.Generator | None],
    matchers: Sequence[Matcher | None],
    top_ps: Sequence[float],
) -> list[int]:
    """The next token of each row. logits: (B, V)."""
    if ruled := [row for row, matcher in enumerate(matchers) if matcher is not None]:
        allowed = np.stack([matcher.allowed() for matcher in matchers if matcher is not None])
        masked = logits[ruled].masked_fill_(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
        logits = logits.index_copy(0, torch.tensor(ruled, device=logits.device), masked)
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, (temperature, generator, top_p) in enumerate(zip(temperatures, generators, top_ps, strict=True)):
        if generator is not None:
            own = logits[row].cpu()
            weights = torch.softmax((own - own.max()) / max(temperature, _COLDEST), dim=-1)
            if not bool(weights.isfinite().all()):
                continue  # a network that computes no numbers must not end the answers of the other rows
            if top_p < 1:
                weights = _likeliest(weights, top_p)
            tokens[row] = int(torch.multinomial(weights, 1, generator=generator))
    return tokens


def _likeliest(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """The weights of the likeliest tokens that hold at least this share, 0 for all others. weights: (V,), sum 1."""
    ordered, places = weights.sort(descending=True)
    kept = places[: int((ordered.cumsum(0) < top_p).sum()) + 1]
    return torch.zeros_like(weights).index_copy(0, kept, weights[kept])


def in_parts(
    engine: Engine,
    order: list[int],
    next_part: Callable[[list[int], int], tuple[list[int], int]],
    work: Callable[[list[int]], None],
) -> None:
    """Does `work` on all places in `order`, part after part. When memory runs out, in smaller parts, down to one row.

    next_part: from places and a limit of tokens, the first of these places, at least one, and the tokens they bring.
    """
    limit = engine.limits.scored_tokens
    while order:
        chosen, tokens = next_part(order, limit)
        try:
            work(chosen)
        except Exception as error:
            if not is_out_of_memory(error) or len(chosen) == 1:
                raise
        else:
            order = order[len(chosen) :]
            continue
        engine.make_room()
        limit = tokens // 2

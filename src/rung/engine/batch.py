"""What the two ways to answer have in common: a batch of jobs, the choice of the next token, and scoring in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rung.engine.engine import Engine
from rung.engine.gpu_kernels import on_device
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
    *,
    rows: Sequence[int] | None = None,
    likeliest: torch.Tensor | None = None,
) -> list[int]:
    """The next token of each row that is asked. logits: (B, V).

    rows: the row of logits of each that is asked; None: all in order. likeliest: the argmax of the logits, (B,), where
    it is known. On a GPU grammars are asked while it computes the logits, and all tokens come back in one transfer.
    """
    own = list(range(len(temperatures))) if rows is None else list(rows)
    ruled = [number for number, matcher in enumerate(matchers) if matcher is not None]
    masked = None
    if ruled:
        allowed = _allowed([matcher for matcher in matchers if matcher is not None], logits)
        chosen = _taken(logits, [own[number] for number in ruled])
        masked = chosen.masked_fill(~allowed, float("-inf"))
    best: list[torch.Tensor] = []
    if len(ruled) < len(own):
        best.append(likeliest if likeliest is not None else logits.argmax(-1))
    if masked is not None:
        best.append(masked.argmax(-1))
    found: list[int] = (best[0] if len(best) == 1 else torch.cat(best)).tolist()
    tokens = [found[row] for row in own] if len(ruled) < len(own) else [0] * len(own)
    for number, token in zip(ruled, found[len(found) - len(ruled) :], strict=True):
        tokens[number] = token
    for number, scores in _sampled(logits, masked, own, ruled, generators).items():
        weights = torch.softmax((scores - scores.max()) / max(temperatures[number], _COLDEST), dim=-1)
        if not bool(weights.isfinite().all()):
            continue  # a network that computes no numbers must not end the answers of the other rows
        if top_ps[number] < 1:
            weights = _likeliest(weights, top_ps[number])
        tokens[number] = int(torch.multinomial(weights, 1, generator=generators[number]))
    return tokens


def _allowed(matchers: Sequence[Matcher], logits: torch.Tensor) -> torch.Tensor:
    """Which tokens may come next, (n, V). A GPU gets them as bits: an eighth of the bytes."""
    if logits.device.type == "cuda":
        held = torch.empty((len(matchers), -(-logits.shape[1] // 8)), dtype=torch.uint8, pin_memory=True)
        for row, matcher in zip(held.numpy(), matchers, strict=True):
            row[:] = matcher.packed()
        return unpacked(held.to(logits.device, non_blocking=True), logits.shape[1])
    return torch.from_numpy(np.stack([matcher.allowed() for matcher in matchers])).to(logits.device)


def unpacked(packed: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(n, bytes) to (n, vocabulary), true where the bit is set. The lowest bit of a byte comes first."""
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return packed[:, :, None].bitwise_right_shift(bits).bitwise_and(1).bool().flatten(1)[:, :vocabulary]


def _taken(logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """These rows of logits."""
    if rows == list(range(len(logits))):
        return logits
    return logits.index_select(0, on_device(torch.tensor(rows), logits.device))


def _sampled(
    logits: torch.Tensor,
    masked: torch.Tensor | None,
    own: Sequence[int],
    ruled: Sequence[int],
    generators: Sequence[torch.Generator | None],
) -> dict[int, torch.Tensor]:
    """Number of one that is asked -> its logits in the machine's memory, of those that are sampled."""
    places = {number: place for place, number in enumerate(ruled)}
    found: dict[int, torch.Tensor] = {}
    for among, given in ((True, masked), (False, logits)):
        numbers = [n for n, generator in enumerate(generators) if generator is not None and (n in places) == among]
        if numbers and given is not None:
            rows = _taken(given, [places[n] if among else own[n] for n in numbers]).cpu()
            found.update(zip(numbers, rows, strict=True))
    return dict(sorted(found.items()))


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
    limit = engine.scored_tokens()
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

"""What the two ways to answer have in common: a batch of jobs, the choice of the next token, and scoring in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rung.engine import gpu_kernels
from rung.engine.engine import Engine
from rung.engine.gpu_kernels import on_device
from rung.engine.grammar import Matcher, pack
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefill import Job

Answered = list[tuple[int, list[int] | None]]
"""Places in the list of jobs, with the tokens of each answer; None where memory does not suffice for that row alone."""
_COLDEST = 1e-6  # a temperature far below it would be rounded to zero
_MOST_DRAWN = 1 << 24  # scores that tokens are drawn from at once on a GPU: 64 MB in float32, a few times


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
    it is known. On a GPU grammars are asked while it computes the logits, sampled tokens are drawn there, and all
    tokens come back in one transfer.
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
    on_gpu = gpu_kernels.is_gpu(logits)
    drawn = [*_drawn_on_gpu(logits, masked, own, ruled, temperatures, generators, top_ps)] if on_gpu else []
    best += [part for _, part in drawn]
    found: list[int] = (best[0] if len(best) == 1 else torch.cat(best)).tolist()
    tokens = [found[row] for row in own] if len(ruled) < len(own) else [0] * len(own)
    start = len(logits) if len(ruled) < len(own) else 0
    for numbers in (ruled, *(numbers for numbers, _ in drawn)):
        for number, token in zip(numbers, found[start : start + len(numbers)], strict=True):
            tokens[number] = token
        start += len(numbers)
    if on_gpu:
        return tokens
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
        held = torch.empty((len(matchers), 4 * -(-logits.shape[1] // 32)), dtype=torch.uint8, pin_memory=True)
        pack(matchers, held.numpy())
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
    found: dict[int, torch.Tensor] = {}
    for numbers, rows in _sampled_rows(logits, masked, own, ruled, generators):
        found.update(zip(numbers, rows.cpu(), strict=True))
    return dict(sorted(found.items()))


def _sampled_rows(
    logits: torch.Tensor,
    masked: torch.Tensor | None,
    own: Sequence[int],
    ruled: Sequence[int],
    generators: Sequence[torch.Generator | None],
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Numbers of those that are sampled and their logits, (n, V): of those with a grammar, and of the others."""
    places = {number: place for place, number in enumerate(ruled)}
    for among, given in ((True, masked), (False, logits)):
        numbers = [n for n, generator in enumerate(generators) if generator is not None and (n in places) == among]
        if numbers and given is not None:
            yield numbers, _taken(given, [places[n] if among else own[n] for n in numbers])


def _drawn_on_gpu(
    logits: torch.Tensor,
    masked: torch.Tensor | None,
    own: Sequence[int],
    ruled: Sequence[int],
    temperatures: Sequence[float],
    generators: Sequence[torch.Generator | None],
    top_ps: Sequence[float],
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Numbers of those that are sampled and their tokens, (n,), which stay on the GPU.

    A row's generator draws one number for each token: its scores, hundreds of kilobytes, need not come back. The
    tokens are others than on a CPU with the same seed, and as likely.
    """
    for numbers, rows in _sampled_rows(logits, masked, own, ruled, generators):
        draws = [float(torch.rand((), generator=generators[number])) for number in numbers]
        given = torch.tensor([[max(temperatures[n], _COLDEST) for n in numbers], [top_ps[n] for n in numbers], draws])
        every = on_device(given, rows.device)
        most = max(1, _MOST_DRAWN // rows.shape[1])
        parts = [slice(first, first + most) for first in range(0, len(numbers), most)]
        cut = [min(top_ps[n] for n in numbers[part]) < 1 for part in parts]
        found = [drawn(rows[part], *every[:, part], cut=is_cut) for part, is_cut in zip(parts, cut, strict=True)]
        yield numbers, torch.cat(found)


def drawn(
    logits: torch.Tensor, temperatures: torch.Tensor, top_ps: torch.Tensor, draws: torch.Tensor, *, cut: bool
) -> torch.Tensor:
    """A token of each row, (n,), by a number in [0, 1) of each: where that share of the chance is reached.

    logits: (n, V). temperatures, top_ps, draws: (n,). cut: whether any of top_ps is below 1. A row whose scores are no
    numbers gets its likeliest token. Nothing waits for the device.
    """
    weights = torch.softmax((logits - logits.amax(-1, keepdim=True)) / temperatures[:, None], dim=-1)
    if cut:  # as `_likeliest`
        ordered, places = weights.sort(descending=True)
        kept = torch.ones_like(ordered, dtype=torch.bool)
        kept[:, 1:] = (ordered.cumsum(-1)[:, :-1] < top_ps[:, None]) | (top_ps[:, None] >= 1)
        weights = torch.zeros_like(weights).scatter(-1, places, ordered * kept)
    # A GPU sums in an order of its own, so that sums may rise by rounding at tokens that may not come.
    reached = torch.where(weights > 0, weights.cumsum(-1), 0.0)
    whole = reached.amax(-1)
    wanted = torch.minimum(draws * whole, whole.nextafter(torch.zeros_like(whole)))  # rounding must not pass the whole
    tokens = (reached > wanted[:, None]).byte().argmax(-1)  # the first one
    return torch.where(whole > 0, tokens, logits.argmax(-1))


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

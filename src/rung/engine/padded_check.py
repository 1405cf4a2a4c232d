"""How a network may be padded, and with which of transformers' attentions, on the padded path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.padded_engine import PaddedEngine
from rung.engine.precision import computing_in
from rung.engine.probe import NEGLIGIBLE, Reference, relative_error

_CUTS = (7, 3, 0)  # tokens that the probe's rows lack behind, so that their lengths differ
_STEPS = 3  # answered tokens


def checked_padded_engine(network: Any, name: str, reference: Reference) -> PaddedEngine:
    """An engine that pads rows only in ways that change no logits of this network, beyond rounding.

    network: with eager attention. PyTorch's own attention is used where it computes the same.
    """
    network.set_attn_implementation("eager")
    engine = PaddedEngine(network, name)
    engine.vocabulary = reference.near.shape[-1]
    with computing_in(network, torch.float32), torch.no_grad():
        engine.keeps = _tried(lambda: _keeps(engine, reference))
        engine.pads_right = _tried(lambda: _pads_right(engine, reference))
        if not _tried(lambda: _computes_with_sdpa(engine, reference)):
            network.set_attn_implementation("eager")
        if not _tried(lambda: bool(_answered(engine, _prompts(reference)[:1], reference))):
            engine.caches = False
        engine.pads_left = _tried(lambda: _pads_left(engine, reference))
        engine.batches = engine.pads_left or _tried(lambda: _batches(engine, reference))
    if engine.pads_left and engine.dtype != torch.float32:
        engine.pads_left = _tried(lambda: _is_finite(engine, reference))
    engine.computed_tokens = 0
    return engine


def _tried(check: Any) -> bool:
    """What the check finds; False where the network does not even compute it. Running out of memory passes."""
    try:
        return bool(check())
    except Exception as error:  # each architecture fails in its own way
        if is_out_of_memory(error):
            raise
        return False


def _keeps(engine: PaddedEngine, reference: Reference) -> bool:
    """Whether the network takes the places whose logits are wanted, and returns those."""
    if "logits_to_keep" not in engine.accepted:
        return False
    places = torch.tensor([2, 5], device=engine.device)
    logits = engine.forward(reference.probe.rows, None, logits_to_keep=places)
    expected = reference.near[:, places]
    return logits.shape == expected.shape and relative_error(logits, expected) <= NEGLIGIBLE


def _pads_right(engine: PaddedEngine, reference: Reference) -> bool:
    rows = [row[: len(row) - cut] for row, cut in zip(reference.probe.rows.tolist(), _CUTS, strict=True)]
    logits = engine.forward(*engine.padded(rows, left=False))
    pairs = [(logits[k, : len(row)], reference.near[k, : len(row)]) for k, row in enumerate(rows)]
    return all(relative_error(found, expected) <= NEGLIGIBLE for found, expected in pairs)


def _computes_with_sdpa(engine: PaddedEngine, reference: Reference) -> bool:
    """Whether PyTorch's own attention, which it leaves switched on, computes what eager attention does."""
    engine.network.set_attn_implementation("sdpa")
    if relative_error(engine.forward(reference.probe.rows, None), reference.near) > NEGLIGIBLE:
        return False
    return not engine.pads_right or _pads_right(engine, reference)


def _pads_left(engine: PaddedEngine, reference: Reference) -> bool:
    """Whether prompts that are padded in front are answered with the logits of each alone."""
    prompts = _prompts(reference)
    together = _answered(engine, prompts, reference)
    for k, logits in enumerate(together):
        first = len(prompts[k]) - 1
        expected = reference.near[k, first : first + len(logits)]
        if relative_error(logits, expected) > NEGLIGIBLE:  # its cache may round, or compute, otherwise
            (expected,) = _answered(engine, prompts[k : k + 1], reference, first_row=k)
            if relative_error(logits, expected) > NEGLIGIBLE:
                return False
    return True


@torch.no_grad()
def _is_finite(engine: PaddedEngine, reference: Reference) -> bool:
    """Whether padding in front, which sees nothing, makes no logits that are no numbers in the network's own type."""
    return all(not bool(logits.isnan().any()) for logits in _answered(engine, _prompts(reference), reference))


def _batches(engine: PaddedEngine, reference: Reference) -> bool:
    """Whether prompts of one length are answered together with the logits of each alone."""
    prompts = [row[:-_STEPS] for row in reference.probe.rows.tolist()]
    together = _answered(engine, prompts, reference)
    alone = [_answered(engine, [prompt], reference, first_row=k)[0] for k, prompt in enumerate(prompts)]
    return all(relative_error(*pair) <= NEGLIGIBLE for pair in zip(together, alone, strict=True))


def _prompts(reference: Reference) -> list[list[int]]:
    return [row[: len(row) - cut - _STEPS] for row, cut in zip(reference.probe.rows.tolist(), _CUTS, strict=True)]


def _answered(
    engine: PaddedEngine, prompts: Sequence[list[int]], reference: Reference, first_row: int = 0
) -> list[torch.Tensor]:
    """Logits of each step of `generate`, (steps, V) a prompt, where the probe's own tokens are the answers."""
    rows = reference.probe.rows.tolist()[first_row : first_row + len(prompts)]
    given = _Given([row[len(prompt) :][:_STEPS] for row, prompt in zip(rows, prompts, strict=True)])
    engine.generate(prompts, given, _STEPS)
    return list(torch.stack(given.logits, 1))


class _Given:
    """Chooses the tokens of given answers, (B, steps), and keeps the logits of each step."""

    def __init__(self, answers: list[list[int]]) -> None:
        self.logits: list[torch.Tensor] = []
        self._answers = answers

    def processor(self, _: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        scores = torch.full_like(logits, float("-inf"))
        tokens = [answer[len(self.logits)] for answer in self._answers]
        scores[torch.arange(len(tokens)), tokens] = 0.0
        self.logits.append(logits.clone())
        return scores

    def ended(self, ids: torch.Tensor, _: Any = None, **__: Any) -> torch.Tensor:
        return torch.full((len(self._answers),), len(self.logits) >= _STEPS, device=ids.device)

"""Direct preference optimisation: a training on pairs of answers to one prompt, of which one is preferred.

For a pair, with log-probabilities of whole answers, end token included,

    margin = (log p(chosen) - log p(rejected)) - (log p_ref(chosen) - log p_ref(rejected))
    loss = -log sigmoid(beta * margin) - sft * log p(chosen) / tokens of the chosen answer

where p_ref are the first weights of the training. The loss of a batch is the mean over its pairs.
Sources: Rafailov et al., Direct preference optimization (2023), equation 7, for the first term; Pang et al., Iterative
reasoning preference optimization (2024), equation 1, for the second, without which both answers may become less likely.
Knows nothing of text. Steps, checkpoints and memory are those of `loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from rung.engine.engine import Engine
from rung.records import append_lines, read_lines
from rung.training.batches import TokenPair
from rung.training.checkpoints import claim
from rung.training.loss import Loss, target_logits, without_gradients
from rung.training.optimisers import optimiser_of, recorded
from rung.types import DPO, Progress, TrainingOptions

REFERENCE = "reference.jsonl"
"""A file in a training's folder, a line for each block of pairs: {"chosen": […], "rejected": […]}, log-probabilities of
the answers before the training, in nats."""

_BLOCK = 64  # pairs whose reference is computed, and kept, at once


def with_reference(
    engine: Engine,
    pairs: Sequence[TokenPair],
    options: TrainingOptions,
    folder: Path,
    *,
    how: DPO,
    start: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> list[TokenPair]:
    """The pairs with their reference, which `loop.train` needs for the loss of `dpo`.

    It is computed with the weights in `start`, or the base's, in blocks. Each is kept in the folder, which then belongs
    to this training, so that a kill loses one. on_step hears of step 0 meanwhile. A batch is
    options.batch_size pairs; the arguments are those of `loop.train`.
    """
    claim(folder, options, pairs, start, {**dpo(how).record, **recorded(optimiser_of(engine, options, folder))})
    record = folder / REFERENCE
    for place in range(len(read_lines(record)) * _BLOCK, len(pairs), _BLOCK):
        on_step(Progress(0, options.steps, 0.0, 0, 0.0))
        chosen, rejected = zip(*log_probabilities(engine, pairs[place : place + _BLOCK], start), strict=True)
        append_lines(record, [{"chosen": chosen, "rejected": rejected}])
    known = [c - r for block in read_lines(record) for c, r in zip(block["chosen"], block["rejected"], strict=True)]
    return [replace(pair, reference=margin) for pair, margin in zip(pairs, known, strict=True)]


def dpo(how: DPO) -> Loss:
    """The loss of the module's formula, for pairs whose reference is known."""

    def of(logits: torch.Tensor, targets: torch.Tensor, pairs: Sequence[TokenPair]) -> torch.Tensor:
        chosen, rejected = _log_probabilities(logits, targets, pairs)
        reference = torch.tensor([pair.reference for pair in pairs], device=chosen.device)
        tokens = torch.tensor([len(pair.chosen.target) for pair in pairs], device=chosen.device)
        each = -logsigmoid(how.beta * (chosen - rejected - reference)) - how.sft * chosen / tokens
        return each.sum()

    return Loss(of, len, {"preferences": asdict(how)})


def log_probabilities(engine: Engine, pairs: Sequence[TokenPair], adapter: Path | None) -> list[tuple[float, float]]:
    """For each pair, log p(chosen) and log p(rejected) in nats, with the adapter in that folder (None: the base)."""

    def of(part: Sequence[TokenPair]) -> list[tuple[float, float]]:
        logits, targets, _ = target_logits(engine, part)
        chosen, rejected = _log_probabilities(logits, targets, part)
        return list(zip(chosen.tolist(), rejected.tolist(), strict=True))

    return [own for part in without_gradients(engine, pairs, adapter, of) for own in part]


def _log_probabilities(
    logits: torch.Tensor, targets: torch.Tensor, pairs: Sequence[TokenPair]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the chosen and of the rejected answers, both (n,). logits: (t, V). targets: (t,)."""
    each = -cross_entropy(logits, targets, reduction="none")  # (t,)
    answers = each.split([len(row.target) for pair in pairs for row in pair.rows])
    whole = torch.stack([answer.sum() for answer in answers])  # (2 n,)
    return whole[0::2], whole[1::2]

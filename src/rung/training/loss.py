"""Losses of answers and their gradients. What is made smaller is an argument: by default, the loss of the answers.

That loss counts the tokens of the answer alone, its end token among them. They are known by their position, never by
token id: in many models the padding token is the end token, and a mask by id would hide it. Every batch divides by its
own number of target tokens, however it is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from rung.engine.engine import Engine
from rung.engine.gpu_kernels import on_device
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import common_prefix_length
from rung.engine.tree_engine import Prefix, TreeEngine
from rung.training.batches import Item, TokenRow, parts_of
from rung.training.cross_entropy import can_fuse, fused_cross_entropy

Result = TypeVar("Result")

_MICRO_TOKENS = 1024  # at once through the network, without gradients
_MICRO_TOKENS_ON_GPU = 4096


@dataclass(frozen=True)
class Loss:
    """What a training makes smaller.

    of: (logits (t, V), target ids (t,), rows or pairs) -> the loss summed over these, whose target tokens stand in
    order. weight: a batch -> what its sum is divided by. record: what the claim of a training says of it.
    """

    of: Callable[[torch.Tensor, torch.Tensor, Sequence[Any]], torch.Tensor]
    weight: Callable[[Sequence[Any]], int]
    record: Mapping[str, Any] = field(default_factory=dict)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, _: Sequence[TokenRow]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


def _target_tokens(rows: Sequence[TokenRow]) -> int:
    return sum(len(row.target) for row in rows)


ANSWERS = Loss(_cross_entropy, _target_tokens)
"""The mean cross-entropy per target token."""


def backward(
    engine: Engine, batch: Sequence[Item], *, micro_tokens: int, scale: float = 1.0, loss: Loss = ANSWERS
) -> tuple[float, int]:
    """As `add_gradients`, and waits for the loss."""
    total, computed = add_gradients(engine, batch, micro_tokens=micro_tokens, scale=scale, loss=loss)
    return float(total), computed


def add_gradients(
    engine: Engine,
    batch: Sequence[Item],
    *,
    micro_tokens: int,
    scale: float = 1.0,
    loss: Loss = ANSWERS,
    weight: int | None = None,
) -> tuple[torch.Tensor, int]:
    """Adds the gradients of a batch's mean loss. Returns that loss, 0-dimensional, and the number of tokens computed.

    scale: what the loss is multiplied with before its gradients are computed; the loss returned is the plain one.
    loss: what is made smaller; the default is the loss per target token. weight: what the sum is divided by, where the
    batch is a share of a larger one; None: the batch's own.

    A batch that fits into micro_tokens goes through the network as one tree of rows, a larger one in parts. A long
    prefix that all rows share is then computed once: the gradients of the parts towards its keys and values are summed
    and go back through it once. Loss and gradients equal those of a plain loop over padded rows. On the padded path
    there is neither tree nor shared prefix.
    """
    total, computed = torch.zeros((), device=engine.device), 0
    if not batch:  # fewer rows than processes
        return total, 0
    weight = loss.weight(batch) if weight is None else weight
    parts, shared, long = cut(engine, batch, micro_tokens)
    prefix = leaves = None
    if shared and isinstance(engine, TreeEngine):
        prefix = engine.compute(batch[0].rows[0].prompt[:shared], long=long)
        leaves = prefix.with_gradients()
        computed = shared
    for part in parts:
        part_loss, tokens = summed_loss(engine, part, leaves, loss)
        (scale * part_loss / weight).backward()
        engine.computed_tokens += tokens  # the backward pass costs as much again
        total += part_loss.detach().float() / weight
        computed += tokens
    if prefix is not None and leaves is not None:
        pairs = [
            (end, leaf.grad)
            for layer, leaf_layer in zip(prefix.layers, leaves.layers, strict=True)
            for end, leaf in zip(layer, leaf_layer, strict=True)
            if end.requires_grad
        ]
        if pairs:
            torch.autograd.backward([end for end, _ in pairs], [grad for _, grad in pairs])
            engine.computed_tokens += shared
    return total, computed


def cut(engine: Engine, batch: Sequence[Item], micro_tokens: int) -> tuple[list[list[Item]], int, bool]:
    """The batch in parts of micro_tokens; tokens of the prefix that is computed once for all parts, or 0; and whether
    there are long rows.
    """
    rows = _rows(batch)
    long = {engine.is_long(row.tokens) for row in rows}
    # Long and short rows share no prefix; on the padded path none do.
    alike = isinstance(engine, TreeEngine) and len(rows) > 1 and len(long) == 1
    shared = common_prefix_length([row.prompt for row in rows]) if alike else 0
    parts = parts_of(batch, shared, micro_tokens)
    return parts, shared if len(parts) > 1 and shared > micro_tokens // 4 else 0, True in long


def summed_loss(
    engine: Engine, part: Sequence[Item], prefix: Prefix | None = None, loss: Loss = ANSWERS
) -> tuple[torch.Tensor, int]:
    """The loss summed over rows or pairs, by default over their target tokens; and the number of tokens computed."""
    if loss is ANSWERS and isinstance(engine, TreeEngine) and can_fuse(engine):
        hidden, computed = engine.target_states([(row.prompt, row.target) for row in _rows(part)], prefix)
        return fused_cross_entropy(hidden, engine.network.get_output_embeddings(), _targets(engine, part)), computed
    logits, targets, computed = target_logits(engine, part, prefix)
    return loss.of(logits, targets, part), computed


def target_logits(
    engine: Engine, part: Sequence[Item], prefix: Prefix | None = None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Logits (t, V) at the target tokens alone, these tokens (t,), and the number of tokens computed.

    prefix: the first tokens of every row, already computed.
    """
    logits, computed = engine.scores([(row.prompt, row.target) for row in _rows(part)], prefix)
    return logits, _targets(engine, part), computed


def _rows(part: Sequence[Item]) -> list[TokenRow]:
    return [row for item in part for row in item.rows]


def _targets(engine: Engine, part: Sequence[Item]) -> torch.Tensor:
    return on_device(torch.tensor([token for row in _rows(part) for token in row.target]), engine.device)


def mean_loss(engine: Engine, rows: Sequence[TokenRow], adapter: Path | None) -> float:
    """Mean loss per target token of rows that are not trained on, with the adapter in that folder (None: the base)."""
    found = without_gradients(engine, rows, adapter, lambda part: float(summed_loss(engine, part)[0]))
    return sum(found) / _target_tokens(rows)


def row_losses(engine: Engine, rows: Sequence[TokenRow], adapter: Path | None) -> list[float]:
    """As `mean_loss`, of each row by itself, in order."""

    def of_part(part: list[TokenRow]) -> list[float]:
        logits, targets, computed = target_logits(engine, part)
        engine.computed_tokens += computed
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return [float(own.mean()) for own in each.split([len(row.target) for row in part])]

    return [loss for part in without_gradients(engine, rows, adapter, of_part) for loss in part]


def without_gradients(
    engine: Engine, items: Sequence[Item], adapter: Path | None, work: Callable[[list[Item]], Result]
) -> list[Result]:
    """What `work` returns for each part of the items, in order, with the adapter in that folder (None: the base).

    When memory runs out, smaller parts go through the network, down to one item.
    """
    found: list[Result] = []
    parts = parts_of(items, 0, _MICRO_TOKENS_ON_GPU if engine.device.type == "cuda" else _MICRO_TOKENS)
    with engine.adapters.using(str(adapter) if adapter is not None else None), torch.inference_mode():
        while parts:
            part = parts.pop(0)
            try:
                found.append(work(part))
                continue
            except Exception as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
            engine.make_room()
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return found

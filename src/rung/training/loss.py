"""Losses of answers and their gradients.

The loss counts the tokens of the answer alone, its end token among them. They are known by their position, never by
token id: in many models the padding token is the end token, and a mask by id would hide it. Every batch divides by its
own number of target tokens, however it is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rung.engine.engine import Engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import common_prefix_length
from rung.engine.tree_engine import Prefix, TreeEngine
from rung.training.batches import TokenRow, parts_of


def backward(engine: Engine, batch: Sequence[TokenRow], *, micro_tokens: int, scale: float = 1.0) -> tuple[float, int]:
    """Adds the gradients of a batch's mean loss per target token. Returns that loss and the number of tokens computed.

    scale: what the loss is multiplied with before its gradients are computed; the loss returned is the plain one.

    A batch that fits into micro_tokens goes through the network as one tree of rows, a larger one in parts. A long
    prefix that all rows share is then computed once: the gradients of the parts towards its keys and values are summed
    and go back through it once. Loss and gradients equal those of a plain loop over padded rows. On the padded path
    there is neither tree nor shared prefix.
    """
    targets = sum(len(row.target) for row in batch)
    long = {engine.is_long(len(row.prompt) + len(row.target)) for row in batch}
    # Long and short rows share no prefix; on the padded path none do.
    alike = isinstance(engine, TreeEngine) and len(batch) > 1 and len(long) == 1
    shared = common_prefix_length([row.prompt for row in batch]) if alike else 0
    parts = parts_of(batch, shared, micro_tokens)
    loss, computed = 0.0, 0
    prefix = leaves = None
    if isinstance(engine, TreeEngine) and len(parts) > 1 and shared > micro_tokens // 4:
        prefix = engine.compute(batch[0].prompt[:shared], long=True in long)
        leaves = prefix.with_gradients()
        computed = shared
    for part in parts:
        part_loss, tokens = summed_loss(engine, part, leaves)
        (scale * part_loss / targets).backward()
        engine.computed_tokens += tokens  # the backward pass costs as much again
        loss += part_loss.item() / targets
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
    return loss, computed


def summed_loss(engine: Engine, rows: Sequence[TokenRow], prefix: Prefix | None = None) -> tuple[torch.Tensor, int]:
    """Cross-entropy summed over the target tokens of the rows, and the number of tokens computed for it.

    Logits are computed at the target tokens only. prefix: the first tokens of every row, already computed.
    """
    logits, computed = engine.scores([(row.prompt, row.target) for row in rows], prefix)  # (t, V)
    targets = torch.tensor([token for row in rows for token in row.target], device=engine.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), computed


def mean_loss(engine: Engine, rows: Sequence[TokenRow], adapter: Path | None, *, micro_tokens: int = 1024) -> float:
    """Mean loss per target token of rows that are not trained on, with the adapter in that folder (None: the base).

    When memory runs out, smaller parts go through the network, down to one row.
    """
    targets, total = sum(len(row.target) for row in rows), 0.0
    parts = parts_of(rows, 0, micro_tokens)
    with engine.adapters.using(str(adapter) if adapter is not None else None), torch.inference_mode():
        while parts:
            part = parts.pop(0)
            try:
                total += float(summed_loss(engine, part)[0])
                continue
            except Exception as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
            engine.make_room()
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return total / targets

"""Whether rung computes what transformers + PEFT compute: loss and gradients of a batch, and greedy answers.

The same weights, the same first adapter (B is not zero) and the same rows. In float32 all must agree to STRICT. In
bfloat16 loss and gradient norm must agree to its rounding, and a greedy answer may part from `generate`'s only where
two tokens are nearly as likely.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpu_part import Given
from gpu_peers import generated, padded, plain_network
from gpu_shapes import ALPHA, RANK, fill, in_training, lora_config
from rung.engine.decode import Job, decode
from rung.engine.engine import Engine
from rung.training import lora
from rung.training.batches import TokenRow
from rung.training.loss import backward
from rung.types import TrainingOptions

STRICT = 1e-4
LOOSE_LOSS, LOOSE_NORM = 1e-2, 5e-2
NEARLY = 0.1
"""In standard deviations of all logits: a token so near to the likeliest one may be chosen in its place."""
NEW_TOKENS = 12


def in_float32(given: Given, rows: Sequence[TokenRow], make: Callable[[Given, torch.dtype], Engine]) -> dict[str, Any]:
    """As `compared`, of an engine in float32 that is made for it."""
    return compared(given, make(given, torch.float32), rows)


def compared(given: Given, engine: Engine, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """The differences, each relative, and `equal`: whether all are within what rounding explains.

    The batch is computed three times by rung, so that what is recorded at first is replayed at last.
    """
    plain = plain_network(given, engine.dtype)
    ours = {name.replace(".base_layer", ""): p for name, p in engine.network.named_parameters()}
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            weight.copy_(ours[name])
    answers = _answers(engine, plain, rows)
    loss, gradients = _ours(engine, rows)
    their_loss, theirs = _theirs(plain, rows)
    del plain
    gc.collect()
    if given.device == "cuda":
        torch.cuda.empty_cache()
    norm, their_norm = _norm(gradients), _norm(theirs)
    apart = _norm({name: gradients[name] - theirs[name] for name in theirs})
    found = {
        "dtype": str(engine.dtype).removeprefix("torch."),
        "loss": loss,
        "peer_loss": their_loss,
        "loss_differs": abs(loss / their_loss - 1),
        "norm_differs": abs(norm / their_norm - 1),
        "gradients_differ": apart / their_norm,
        **answers,
    }
    return {**found, "equal": is_equal(found)}


def is_equal(found: dict[str, Any]) -> bool:
    """Whether the differences are within what rounding explains."""
    if found["dtype"] == "float32":
        differences = (found["loss_differs"], found["norm_differs"], found["gradients_differ"])
        return max(differences) <= STRICT and found["same_answers"] == found["answers"]
    near = found["loss_differs"] <= LOOSE_LOSS and found["norm_differs"] <= LOOSE_NORM
    return near and found["same_answers"] + found["nearly_as_likely"] == found["answers"]


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([g.float().norm() for g in gradients.values()]).norm())


def _ours(engine: Engine, rows: Sequence[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    options = TrainingOptions(1e-4, steps=100, batch_size=len(rows), rank=RANK, alpha=ALPHA, seed=0)
    learner = lora.begin(engine, options, None)
    try:
        weights = in_training(engine.network)
        fill(weights)
        loss = 0.0
        for _ in range(3):
            learner.drop_gradients()
            loss, _ = backward(engine, rows, micro_tokens=options.micro_tokens)
        gradients = {name: weight.grad.clone() for name, weight in weights.items()}
    finally:
        learner.drop_gradients()
        engine.adapters.end_training()
    return loss, gradients


def _theirs(plain: Any, rows: Sequence[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    from peft import get_peft_model

    network = get_peft_model(plain, lora_config())  # its adapter is in float32, as rung's
    weights = in_training(network)
    fill(weights)
    network.train()
    loss = network(**padded(rows, next(plain.parameters()).device), use_cache=False).loss
    loss.backward()
    return float(loss), {name: weight.grad for name, weight in weights.items()}


def _answers(engine: Engine, plain: Any, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """How many greedy answers are as `generate` gives them one at a time, and how many part at a near tie."""
    asked = [list(row.prompt) for row in rows]
    found: list[list[int]] = [[] for _ in asked]
    with torch.inference_mode():
        for part in decode(engine, [Job(prompt, NEW_TOKENS) for prompt in asked], ()):
            for place, ids in part:
                found[place] = list(ids or [])
    same = near = 0
    for prompt, ids in zip(asked, found, strict=True):
        theirs = generated(plain, [prompt], NEW_TOKENS)[0]
        if ids == theirs:
            same += 1
        elif len(ids) == len(theirs):
            first = next(i for i, (a, b) in enumerate(zip(ids, theirs, strict=True)) if a != b)
            near += _is_near(plain, [*prompt, *ids[:first]], ids[first])
    return {"answers": len(asked), "same_answers": same, "nearly_as_likely": near}


@torch.inference_mode()
def _is_near(plain: Any, ids: list[int], token: int) -> bool:
    logits = plain(torch.tensor([ids], device=next(plain.parameters()).device), use_cache=False).logits[0, -1].float()
    return float(logits.max() - logits[token]) <= NEARLY * float(logits.std())

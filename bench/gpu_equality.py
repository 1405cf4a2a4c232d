"""Whether rung computes what transformers + PEFT compute: loss and gradients of a batch, and greedy answers.

The same weights, the same first adapter (B is not zero) and the same rows. In float32 all must agree to STRICT. In
bfloat16 they must agree to its rounding, LOOSE, and a greedy answer may part from `generate`'s only where
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
from rung.training.captured import captured_gradients
from rung.training.loss import backward
from rung.types import TrainingOptions

STRICT = 1e-4
LOOSE = (5e-3, 2e-2, 0.15)
"""Of loss, gradient norm and gradients in bfloat16, whose rounding turns single gradients."""
NEARLY = 0.1
"""In standard deviations of all logits: a token so near to the likeliest one may be chosen in its place."""
NEW_TOKENS = 12


def in_float32(given: Given, rows: Sequence[TokenRow], make: Callable[[Given, torch.dtype], Engine]) -> dict[str, Any]:
    """As `compared`, of an engine in float32 that is made for it."""
    return compared(given, make(given, torch.float32), rows)


def compared(given: Given, engine: Engine, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """The differences, each relative, and `equal`: whether all are within what rounding explains.

    rung computes the batch three times in each way, so that what is recorded at first is replayed at last. Figures of
    recorded passes begin with `static_`.
    """
    plain = plain_network(given, engine.dtype)
    ours = {name.replace(".base_layer", ""): p for name, p in engine.network.named_parameters()}
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            weight.copy_(ours[name])
    answers = _answers(engine, plain, rows)
    ours_by = {"": _ours(engine, rows, static=False)}
    if engine.ways.static:
        ours_by["static_"] = _ours(engine, rows, static=True)
    their_loss, theirs = _theirs(plain, rows)
    del plain
    gc.collect()
    if given.device == "cuda":
        torch.cuda.empty_cache()
    their_norm = _norm(theirs)
    found = {"dtype": str(engine.dtype).removeprefix("torch."), "peer_loss": their_loss, **answers}
    for kind, computed in ours_by.items():
        if computed is None:
            continue
        loss, gradients = computed
        found[f"{kind}loss_differs"] = abs(loss / their_loss - 1)
        found[f"{kind}norm_differs"] = abs(_norm(gradients) / their_norm - 1)
        apart = {name: gradients[name] - theirs[name] for name in theirs}
        found[f"{kind}gradients_differ"] = _norm(apart) / their_norm
    return {**found, "equal": is_equal(found)}


def is_equal(found: dict[str, Any]) -> bool:
    """Whether the differences are within what rounding explains."""
    losses, norms, apart = (
        max(figure for key, figure in found.items() if key.endswith(name))
        for name in ("loss_differs", "norm_differs", "gradients_differ")
    )
    if found["dtype"] == "float32":
        return max(losses, norms, apart) <= STRICT and found["same_answers"] == found["answers"]
    near = all(figure <= most for figure, most in zip((losses, norms, apart), LOOSE, strict=True))
    return near and found["same_answers"] + found["nearly_as_likely"] == found["answers"]


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([g.float().norm() for g in gradients.values()]).norm())


def _ours(engine: Engine, rows: Sequence[TokenRow], *, static: bool) -> tuple[float, dict[str, torch.Tensor]] | None:
    """Loss and gradients; with `static`, by passes that are recorded, or None where this training has none."""
    options = TrainingOptions(1e-4, steps=100, batch_size=len(rows), rank=RANK, alpha=ALPHA, seed=0)
    learner = lora.begin(engine, options, None)
    captured = captured_gradients(engine, learner.weights, [], steps=100, dropout=0.0) if static else None
    weight = sum(len(row.target) for row in rows)
    try:
        if static and captured is None:
            return None
        weights = in_training(engine.network)
        fill(weights)
        for _ in range(3):
            learner.drop_gradients()
            if captured is None:
                loss, _ = backward(engine, rows, micro_tokens=4096)
            elif (found := captured.add(rows, micro_tokens=4096, factor=1 / weight)) is not None:
                loss = float(found[0].detach())
            else:
                return None
        return loss, {name: w.grad.clone() for name, w in weights.items()}
    finally:
        learner.drop_gradients()
        if captured is not None:
            captured.close()
        engine.adapters.end_training()


def _theirs(plain: Any, rows: Sequence[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    from peft import get_peft_model

    network = get_peft_model(plain, lora_config())  # its adapter is in float32, as rung's
    weights = in_training(network)
    fill(weights)
    network.train()
    loss = network(**padded(rows, next(plain.parameters()).device), use_cache=False).loss
    loss.backward()
    return float(loss.detach()), {name: weight.grad for name, weight in weights.items()}


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

"""LoRA by PEFT, in a loop that is a function: exact, seeded, resumable with its optimiser's state.

The loss is that of the answer's tokens alone, the end token among them. Which tokens those are is
known by position, never by token id: for many models the padding token is the end token, and a mask
by id would hide it. Every effective batch divides by its own number of target tokens, however it is
cut into micro-batches. The beginning that all prompts of a batch share is computed once a batch.
Sources: Hu et al., LoRA (2021); Kalajdzievski, rsLoRA (2023), and Liu et al., DoRA (2024), for the
options; Loshchilov & Hutter, AdamW (2019).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rung.errors import Diverged, TrainingError, TruncatedAnswer
from rung.engine.adapters import IN_TRAINING
from rung.engine.engine import Beginning
from rung.models.local import LocalModel
from rung.engine.prefix_tree import common_beginning, grow
from rung.records import read_json, write_json

_CHECKPOINT_EVERY_S = 20.0


@dataclass(frozen=True)
class Row:
    """A rendered example. prompt: ids up to where the answer begins; target: ids of the answer with its end token."""

    id: str
    prompt: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class LoraOptions:
    """How to train.

    rank, alpha: of the update B A x alpha / rank, on all linear layers but the output layer.
    rslora: alpha / sqrt(rank) instead. dora: directions and lengths apart, by PEFT's own, slower layers.
    layers: the share of the decoder's layers that get an adapter, from the top; the gradient stops below them.
    steps: optimiser steps the learning-rate schedule is made for (warm-up, then linear to zero).
    batch_size: examples a step. micro_tokens: at most so many own tokens go through the network at once.
    """

    learning_rate: float
    steps: int
    batch_size: int = 8
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    layers: float = 1.0
    warmup_share: float = 0.06
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    micro_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a training stands. loss: mean per target token over the last step; tokens: own tokens computed so far."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


def render_rows(
    model: LocalModel, ids: Sequence[str], prompts: Sequence[list[int]], answers: Sequence[str], *, max_length: int
) -> list[Row]:
    """Rows ready to train on.

    Raises TruncatedAnswer, naming the rows, when a prompt leaves no room for its whole answer within max_length.
    """
    rows = [
        Row(id_, tuple(prompt), tuple(model.encode_answer(answer)))
        for id_, prompt, answer in zip(ids, prompts, answers, strict=True)
    ]
    long = [row for row in rows if len(row.prompt) + len(row.target) > max_length]
    if long:
        named = ", ".join(f"{r.id} ({len(r.prompt)} + {len(r.target)} tokens)" for r in long[:5])
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        raise TruncatedAnswer(
            f"{len(long)} of {len(rows)} training examples do not fit {max_length} tokens, so their answers would be "
            f"cut: {named}{more}. Shorten these inputs, show fewer passages, or use a model with a longer context."
        )
    return rows


def train(
    model: LocalModel,
    rows: Sequence[Row],
    options: LoraOptions,
    folder: Path,
    *,
    until: int | None = None,
    start: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Trains an adapter up to step `until` (None: all steps) and returns its PEFT folder, folder/step-N.

    start: an adapter folder of the same shape whose weights are the first ones (None: fresh ones).
    Continues from the newest checkpoint in `folder`, bit by bit as if it had never stopped. A folder
    that has already reached the step is returned as it is.
    Raises TrainingError when the folder belongs to other options or the loss stops being a number.
    """
    until = options.steps if until is None else min(until, options.steps)
    result = folder / f"step-{until}"
    if (result / "adapter_config.json").is_file():
        return result
    _claim(folder, options, rows, start)
    network = _fresh_adapter(model, options)
    if start is not None:
        _copy_weights(start, network)
    try:
        parameters = [p for p in model.network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=options.learning_rate, betas=(0.9, 0.999), weight_decay=options.weight_decay, fused=True
        )
        newest, step, tokens, seconds = _restore(folder, parameters, optimiser, until)
        model.network.train()
        saved = started = time.monotonic()
        while step < until:
            batch = [rows[i] for i in batch_indices(len(rows), options.batch_size, step, options.seed)]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, options)
            optimiser.zero_grad(set_to_none=True)
            loss, computed = backward(model, batch, micro_tokens=options.micro_tokens)
            if not math.isfinite(loss):
                raise Diverged(
                    f"training in {folder}: the loss is {loss} at step {step + 1}. Use a lower learning rate "
                    f"than {options.learning_rate:g}."
                )
            torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
            optimiser.step()
            step, tokens = step + 1, tokens + computed
            now = time.monotonic()
            on_step(Progress(step, options.steps, loss, tokens, seconds + now - started))
            if step > newest and (now - saved > _CHECKPOINT_EVERY_S or step == until):
                _checkpoint(folder, parameters, optimiser, step, tokens, seconds + now - started)
                saved = now
        scratch = folder / f"step-{until}.tmp"
        network.save_pretrained(scratch, selected_adapters=[IN_TRAINING], save_embedding_layers=False)
        scratch.joinpath(IN_TRAINING).replace(result)  # PEFT puts a named adapter into a folder of its name
        scratch.joinpath("README.md").unlink(missing_ok=True)
        scratch.rmdir()
    finally:
        model.network.eval()
        model.engine.adapters.end_training()
    return result


def backward(model: LocalModel, batch: Sequence[Row], *, micro_tokens: int) -> tuple[float, int]:
    """Adds the gradients of a batch's mean loss per target token. Returns that loss and the tokens computed.

    A batch that fits goes through the network as one tree of rows. A larger one goes in parts; where its
    beginning is long it is computed once, and the parts' gradients towards its keys and values are summed
    and sent back through it once. Equal to the plain loop's loss and gradients.
    """
    targets = sum(len(row.target) for row in batch)
    shared = common_beginning([row.prompt for row in batch]) if len(batch) > 1 else 0
    parts = _parts(batch, shared, micro_tokens)
    loss, computed = 0.0, 0
    beginning = leaves = None
    if len(parts) > 1 and shared > micro_tokens // 4:
        beginning = model.engine.compute(batch[0].prompt[:shared])
        leaves = beginning.with_gradients()
        computed = shared
    for part in parts:
        part_loss, tokens = summed_loss(model, part, leaves)
        (part_loss / targets).backward()
        model.engine.computed_tokens += tokens  # the way back costs as much again
        loss += part_loss.item() / targets
        computed += tokens
    if beginning is not None and leaves is not None:
        pairs = [
            (end, leaf.grad)
            for layer, leaf_layer in zip(beginning.layers, leaves.layers, strict=True)
            for end, leaf in zip(layer, leaf_layer, strict=True)
            if end.requires_grad
        ]
        if pairs:
            torch.autograd.backward([end for end, _ in pairs], [grad for _, grad in pairs])
    return loss, computed


def summed_loss(model: LocalModel, rows: Sequence[Row], beginning: Beginning | None = None) -> tuple[torch.Tensor, int]:
    """Cross-entropy summed over the target tokens of the rows, and how many tokens were computed for it.

    Logits are computed at the target tokens only. beginning: the first tokens of every row, already computed.
    """
    known = len(beginning.ids) if beginning is not None else 0
    tree = grow([[*row.prompt[known:], *row.target[:-1]] for row in rows])
    places: list[int] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        first = len(row.prompt) - known - 1  # the last prompt token predicts the first target token
        places += tree.places(i, first, first + len(row.target))
        targets += row.target
    logits = model.engine.logits(model.engine.hidden_of(tree, [beginning], wanted=places))  # (t, V)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets, device=model.device), reduction="sum")
    return loss, len(tree.ids)


def mean_loss(model: LocalModel, rows: Sequence[Row], adapter: Path | None, *, micro_tokens: int = 1024) -> float:
    """Mean loss per target token of rows that are not trained on, with the adapter in that folder (None: the base)."""
    with model.using(str(adapter) if adapter is not None else None), torch.inference_mode():
        total = sum(float(summed_loss(model, part)[0]) for part in _parts(rows, 0, micro_tokens))
    return total / sum(len(row.target) for row in rows)


def batch_indices(rows: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The rows of a step: each epoch is a permutation drawn from (seed, epoch) and cut into batches in turn."""
    per_epoch = steps_per_epoch(rows, batch_size)
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
    # Batches of nearly equal size: no tiny last batch whose few tokens would weigh as much as a whole one's.
    bounds = [round(i * rows / per_epoch) for i in range(per_epoch + 1)]
    return [int(i) for i in order[bounds[place] : bounds[place + 1]]]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return max(1, -(-rows // batch_size))


def learning_rate_at(step: int, options: LoraOptions) -> float:
    """Linear warm-up over the first share of the steps, then linear to zero."""
    warmup = max(1, round(options.warmup_share * options.steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    return options.learning_rate * (options.steps - step) / max(1, options.steps - warmup)


def _own_length(row: Row, shared: int) -> int:
    return len(row.prompt) - shared + len(row.target) - 1


def _parts(batch: Sequence[Row], shared: int, micro_tokens: int) -> list[list[Row]]:
    """The batch in parts of at most micro_tokens own tokens each (or one row), filled in order."""
    parts: list[list[Row]] = []
    left = 0
    for row in batch:
        length = _own_length(row, shared)
        if length > left or not parts:
            parts.append([])
            left = micro_tokens
        parts[-1].append(row)
        left -= length
    return parts


def _fresh_adapter(model: LocalModel, options: LoraOptions) -> Any:
    from peft import LoraConfig

    depth = model.network.config.get_text_config().num_hidden_layers
    adapted = max(1, round(options.layers * depth))
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        layers_to_transform=list(range(depth - adapted, depth)) if adapted < depth else None,
        target_modules="all-linear" if adapted == depth else _linear_names(model.network),
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name,
    )
    return model.engine.adapters.begin_training(config, options.seed)


def _linear_names(network: Any) -> list[str]:
    """Last names of the linear layers but the output's: PEFT picks layers by number only among named modules."""
    output = network.get_output_embeddings()
    return sorted(
        {
            name.removesuffix(".base_layer").rpartition(".")[2]
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and ".lora_" not in name and module is not output
        }
    )


def _copy_weights(start: Path, network: Any) -> None:
    """Puts the weights of an adapter folder into the adapter in training."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(network, load_file(start / "adapter_model.safetensors"), adapter_name=IN_TRAINING)


def _claim(folder: Path, options: LoraOptions, rows: Sequence[Row], start: Path | None) -> None:
    """The folder belongs to one set of options and rows; checkpoints of others are never continued."""
    claim: dict[str, Any] = {"options": asdict(options), "rows": len(rows), "rows_sha256": _sha256_of(rows)}
    if start is not None:
        weights = (start / "adapter_model.safetensors").read_bytes()
        claim["start_sha256"] = hashlib.sha256(weights).hexdigest()
    written = read_json(folder / "training.json")
    if written is None:
        write_json(folder / "training.json", claim)
    elif written != claim:
        raise TrainingError(
            f"{folder}: holds another training ({written['options']}). Name another folder or remove it."
        )


def _sha256_of(rows: Sequence[Row]) -> str:
    return hashlib.sha256(repr([(row.prompt, row.target) for row in rows]).encode()).hexdigest()


def _checkpoint(
    folder: Path, parameters: list[Any], optimiser: torch.optim.Optimizer, step: int, tokens: int, seconds: float
) -> None:
    state = {
        "step": step,
        "tokens": tokens,
        "seconds": seconds,
        "parameters": [p.detach() for p in parameters],
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
    }
    scratch = folder / "checkpoint.pt.tmp"
    torch.save(state, scratch)
    scratch.replace(folder / "checkpoint.pt")


def _restore(
    folder: Path, parameters: list[Any], optimiser: torch.optim.Optimizer, until: int
) -> tuple[int, int, int, float]:
    """(newest checkpoint's step, step to go on from, tokens, seconds); a checkpoint past `until` is left alone."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return 0, 0, 0, 0.0
    state = torch.load(path, weights_only=True, map_location=parameters[0].device)
    if int(state["step"]) > until:
        return int(state["step"]), 0, 0, 0.0
    with torch.no_grad():
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(value)
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"].cpu())
    return int(state["step"]), int(state["step"]), int(state["tokens"]), float(state["seconds"])

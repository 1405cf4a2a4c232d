"""LoRA by PEFT, in a loop that is a function: exact, seeded, and resumable with the optimiser's state.

Works on an engine and on rows of token ids. The prefix that all prompts of a batch share is computed once a batch.
Sources: Hu et al., LoRA (2021); Kalajdzievski, rsLoRA (2023), and Liu et al., DoRA (2024), for the
options; Loshchilov & Hutter, AdamW (2019).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rung.engine.adapters import IN_TRAINING
from rung.engine.devices import synchronize
from rung.engine.engine import Engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import Diverged, OutOfMemory
from rung.resume import folder_once
from rung.training.batches import TokenRow, batch_indices, learning_rate_at
from rung.training.checkpoints import State, claim, restore, save
from rung.training.loss import backward
from rung.types import Progress, TrainingOptions

_CHECKPOINT_EVERY_S = 20.0


def train(
    engine: Engine,
    rows: Sequence[TokenRow],
    options: TrainingOptions,
    folder: Path,
    *,
    until: int | None = None,
    start: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Trains an adapter up to step `until` (None: all steps) and returns its PEFT folder, folder/step-N.

    start: an adapter folder of the same shape whose weights are the first ones (None: fresh ones).
    Continues from the newest checkpoint in `folder`, bit by bit as if it had never stopped. A folder that has already
    reached the step is returned as it is. What on_step raises ends the training after a checkpoint is written.
    Raises TrainingError when the folder belongs to another training; Diverged when the loss is no number; OutOfMemory
    when memory does not suffice for a batch of one row at a time.
    """
    until = options.steps if until is None else min(until, options.steps)
    result = folder / f"step-{until}"
    if (result / "adapter_config.json").is_file():
        return result
    claim(folder, options, rows, start)
    try:
        network, parameters, optimiser, state = engine.retried(lambda: _begin(engine, options, folder, until, start))
        engine.network.train()
        _loop(engine, rows, options, folder, until, on_step, parameters, optimiser, state)
        folder_once(result, lambda scratch: _save_adapter(network, scratch))
    finally:
        engine.network.eval()
        engine.adapters.end_training()
    return result


def _begin(
    engine: Engine, options: TrainingOptions, folder: Path, until: int, start: Path | None
) -> tuple[Any, list[Any], torch.optim.Optimizer, State]:
    """PEFT's wrapper, the adapter's weights, their optimiser with all its memory, and how far the training has come."""
    network = _fresh_adapter(engine, options)
    if start is not None:
        _copy_weights(start, network)
    parameters = [p for p in engine.network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=options.weight_decay,
        fused=engine.device.type in ("cpu", "cuda"),
    )
    state = restore(folder, parameters, optimiser, until, options.micro_tokens)
    if not optimiser.state:
        _allocate_moments(parameters, optimiser)
    return network, parameters, optimiser, state


def _allocate_moments(parameters: list[Any], optimiser: torch.optim.Optimizer) -> None:
    """Makes AdamW take its memory before the first batch, whose parts then fit into what remains. Changes no weight."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.step()
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
    for moments in optimiser.state.values():
        moments["step"].zero_()
    optimiser.zero_grad(set_to_none=True)


def _loop(
    engine: Engine,
    rows: Sequence[TokenRow],
    options: TrainingOptions,
    folder: Path,
    until: int,
    on_step: Callable[[Progress], None],
    parameters: list[Any],
    optimiser: torch.optim.Optimizer,
    state: State,
) -> None:
    """Steps until `until`, with a checkpoint every few seconds, at the end, and before on_step's exceptions pass."""
    before, saved = state.seconds, time.monotonic()
    started = saved
    while state.step < until:
        batch = [rows[i] for i in batch_indices(len(rows), options.batch_size, state.step, options.seed)]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(state.step, options)
        loss, computed = _gradients(engine, batch, optimiser, state)
        if not math.isfinite(loss):
            raise Diverged(
                f"training in {folder}: the loss is {loss} at step {state.step + 1}. Use a lower learning rate "
                f"than {options.learning_rate:g}."
            )
        torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
        optimiser.step()
        synchronize(engine.device)
        now = time.monotonic()
        state.step, state.tokens, state.seconds = state.step + 1, state.tokens + computed, before + now - started
        try:
            on_step(Progress(state.step, options.steps, loss, state.tokens, state.seconds))
        except BaseException:
            save(folder, parameters, optimiser, state)
            raise
        if now - saved > _CHECKPOINT_EVERY_S or state.step == until:
            save(folder, parameters, optimiser, state)
            saved = now


def _gradients(
    engine: Engine, batch: Sequence[TokenRow], optimiser: torch.optim.Optimizer, state: State
) -> tuple[float, int]:
    """Loss and computed tokens of a batch, whose gradients are then in the parameters.

    When memory runs out, the batch is computed again in parts of half as many tokens, down to one row; later batches
    keep that size. The loss and the gradients are the same to rounding.
    """
    rng = torch.get_rng_state()
    while True:
        optimiser.zero_grad(set_to_none=True)
        try:
            return backward(engine, batch, micro_tokens=state.micro_tokens)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        optimiser.zero_grad(set_to_none=True)
        engine.make_room()
        if state.micro_tokens <= 1:
            longest = max(len(row.prompt) + len(row.target) for row in batch)
            raise OutOfMemory(
                f"model {engine.name}: memory does not suffice to train on one row at a time (the longest one has "
                f"{longest} tokens). Close other programs, use a smaller model, or shorten the inputs."
            )
        torch.set_rng_state(rng)
        tokens = sum(len(row.prompt) + len(row.target) for row in batch)
        state.micro_tokens = max(1, min(state.micro_tokens, tokens) // 2)


def _save_adapter(network: Any, folder: Path) -> None:
    network.save_pretrained(folder, selected_adapters=[IN_TRAINING], save_embedding_layers=False)
    for file in (folder / IN_TRAINING).iterdir():  # PEFT puts a named adapter into a folder of its name
        file.replace(folder / file.name)
    (folder / IN_TRAINING).rmdir()
    (folder / "README.md").unlink(missing_ok=True)


def _fresh_adapter(engine: Engine, options: TrainingOptions) -> Any:
    from peft import LoraConfig

    depth = engine.network.config.get_text_config().num_hidden_layers
    adapted = max(1, round(options.layers * depth))
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        layers_to_transform=list(range(depth - adapted, depth)) if adapted < depth else None,
        target_modules="all-linear" if adapted == depth else _linear_names(engine.network),
        task_type="CAUSAL_LM",
        base_model_name_or_path=engine.name,
    )
    return engine.adapters.begin_training(config, options.seed)


def _linear_names(network: Any) -> list[str]:
    """Last names of all linear layers but the output layer: PEFT picks layers by number only among named modules."""
    output = network.get_output_embeddings()
    return sorted(
        {
            name.removesuffix(".base_layer").rpartition(".")[2]
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and ".lora_" not in name and module is not output
        }
    )


def _copy_weights(start: Path, network: Any) -> None:
    """Copies the weights of an adapter folder into the adapter in training."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(network, load_file(start / "adapter_model.safetensors"), adapter_name=IN_TRAINING)

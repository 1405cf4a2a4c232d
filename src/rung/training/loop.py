"""A training as a function: exact, seeded, and resumable with the optimiser's state.

Works on an engine and on rows of token ids. What is trained, an adapter or all weights, is a Learner.
Sources: Loshchilov & Hutter, AdamW (2019); Micikevicius et al., Mixed precision training (2018), for the loss's scale.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.engine.checkpointing import checkpointing, least_bytes
from rung.engine.devices import random_state, set_random_state, synchronize
from rung.engine.engine import Engine
from rung.engine.memory import free_bytes
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import Diverged, OutOfMemory
from rung.resume import folder_once, is_done
from rung.training import lora, whole
from rung.training.batches import Item, TokenPair, TokenRow, batch_indices, learning_rate_at
from rung.training.checkpoints import State, checkpoint_of, claim, restore, save
from rung.training.learner import Learner
from rung.training.loss import ANSWERS, Loss, backward
from rung.types import Progress, TrainingOptions

_CHECKPOINT_EVERY_S = 20.0
_LOSS_SCALE = 2.0**10  # in float16
_LARGER = 3  # times as long between checkpoints of all weights, which take seconds to write


@dataclass(frozen=True)
class _Job:
    """What was asked for; the fields are the arguments of `train`."""

    engine: Engine
    rows: Sequence[TokenRow] | Sequence[TokenPair]
    loss: Loss
    options: TrainingOptions
    folder: Path
    until: int
    start: Path | None
    on_step: Callable[[Progress], None]
    beside: Callable[[Path], None]


def train(
    engine: Engine,
    rows: Sequence[Item],
    options: TrainingOptions,
    folder: Path,
    *,
    loss: Loss = ANSWERS,
    until: int | None = None,
    start: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
    beside: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Trains up to step `until` (None: all steps) and returns the folder of what was learnt, folder/step-N.

    It is a PEFT folder or, where all weights are trained, a folder that transformers loads. The network of the engine
    is left as it was, bit by bit. rows: what batches are drawn from. loss: what is made smaller; by default, the
    loss of the rows' answers. start: a folder of the same kind and shape whose weights are the first ones (None: a
    fresh adapter, or the network's own weights). beside: writes into a folder of all weights what the engine does not
    know and a model by itself needs, such as a tokenizer.
    Continues from the newest checkpoint in `folder`, bit by bit as if it had never stopped. A folder that has already
    reached the step is returned as it is. What on_step raises ends the training after a checkpoint is written.
    Raises TrainingError when the folder belongs to another training or the network cannot be trained; Diverged when the
    loss is no number; OutOfMemory when memory does not suffice for a batch of one row at a time.
    """
    until = options.steps if until is None else min(until, options.steps)
    result = folder / f"step-{until}"
    if is_done(result):
        return result
    claim(folder, options, rows, start, loss.record)
    if options.full:
        whole.check_room(engine, folder)
    job, newest = _Job(engine, rows, loss, options, folder, until, start, on_step, beside), -1
    while True:
        state = State(micro_tokens=options.micro_tokens)
        try:
            _attempt(job, state, result)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # whoever keeps the error does not keep the optimiser
            # Where it ran out within a step of the optimiser, some weights are a step ahead of others.
            if state.stopped or state.step <= newest or not is_out_of_memory(error):
                raise
        else:
            if options.full and until == options.steps:  # with its moments it is three times as large as the weights
                checkpoint_of(folder).unlink(missing_ok=True)
            return result
        newest = state.step
        engine.make_room()


def _attempt(job: _Job, state: State, result: Path) -> None:
    """From the newest checkpoint to the end. The network is as before afterwards, whatever happens."""
    engine = job.engine
    try:
        learner, optimiser = _begin(job, state)
        _drop_in_adapters(engine.network)
        _loop(job, learner, optimiser, state)
        folder_once(result, lambda scratch: _save(job, learner, scratch))
    finally:
        engine.network.eval()
        engine.adapters.end_training()


def _save(job: _Job, learner: Learner, folder: Path) -> None:
    learner.save(folder)
    if job.options.full:
        job.beside(folder)


def _begin(job: _Job, state: State) -> tuple[Learner, torch.optim.Optimizer]:
    """What is trained and its optimiser with all its memory. state: is set to how far the training has come."""
    engine, options = job.engine, job.options
    learner = (whole if options.full else lora).begin(engine, options, job.start)
    optimiser = torch.optim.AdamW(
        learner.parameters,
        lr=options.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=options.weight_decay,
        fused=engine.device.type in ("cpu", "cuda"),
    )
    if restore(job.folder, learner.parameters, optimiser, job.until, state, engine.device):
        learner.spread()
    else:
        _allocate_moments(learner, optimiser)
        state.checkpointing = _is_hopeless(engine, job.rows)
    return learner, optimiser


def _drop_in_adapters(network: torch.nn.Module) -> None:
    """Turns on the dropout of adapters. The network's own stays off: rows share tokens, and both paths train alike."""
    for module in network.modules():
        if hasattr(module, "lora_dropout"):
            module.train()


def _allocate_moments(learner: Learner, optimiser: torch.optim.Optimizer) -> None:
    """Makes AdamW take its memory before the first batch, whose parts then fit into what remains. Changes no weight."""
    for parameter in learner.parameters:
        parameter.grad = torch.zeros_like(parameter)
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.step()
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
    for moments in optimiser.state.values():
        moments["step"].zero_()
    learner.drop_gradients()


def _is_hopeless(engine: Engine, rows: Sequence[TokenRow] | Sequence[TokenPair]) -> bool:
    """Whether memory cannot hold what the layers keep of the longest row. On a CPU nobody says so until it is late."""
    needed = least_bytes(engine.network, max(row.tokens for row in rows))
    if needed <= free_bytes(engine.device):
        return False
    engine.make_room()
    return needed > free_bytes(engine.device)


def _loop(job: _Job, learner: Learner, optimiser: torch.optim.Optimizer, state: State) -> None:
    """Steps until the end, with a checkpoint every few seconds, at the end, and before on_step's exceptions pass."""
    options, folder = job.options, job.folder
    every_s = _CHECKPOINT_EVERY_S * (_LARGER if options.full else 1)
    before, saved = state.seconds, time.monotonic()
    started = saved

    def keep() -> None:
        save(folder, learner.parameters, optimiser, state, random_state(job.engine.device))

    while state.step < job.until:
        batch = [job.rows[i] for i in batch_indices(len(job.rows), options.batch_size, state.step, options.seed)]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(state.step, options)
        loss, computed, norm = _gathered(job, batch, learner, state)
        for what, number in (("loss", loss), ("norm of the gradient", norm)):
            if not math.isfinite(number):
                raise Diverged(
                    f"training in {folder}: the {what} is {number} at step {state.step + 1}. Use a lower learning rate "
                    f"than {options.learning_rate:g}."
                )
        optimiser.step()
        learner.spread()
        synchronize(job.engine.device)
        now = time.monotonic()
        state.step, state.tokens, state.seconds = state.step + 1, state.tokens + computed, before + now - started
        try:
            job.on_step(Progress(state.step, options.steps, loss, state.tokens, state.seconds))
        except BaseException:
            state.stopped = True
            keep()
            raise
        if now - saved > every_s or state.step == job.until:
            keep()
            saved = time.monotonic()


def _gathered(job: _Job, batch: Sequence[Any], learner: Learner, state: State) -> tuple[float, int, float]:
    """Loss, computed tokens and the gradients' norm of a batch. The gradients are then in the parameters, clipped.

    Float16 rounds small gradients to zero: there the loss is scaled up, and the gradients are scaled down again. Where
    they are too large for float16 then, they are computed once more without a scale.
    """
    rng, norm = random_state(job.engine.device), math.nan
    for scale in (_LOSS_SCALE, 1.0) if job.engine.dtype == torch.float16 else (1.0,):
        loss, computed = _gradients(job, batch, learner, state, scale)
        learner.gather(scale)
        norm = float(torch.nn.utils.clip_grad_norm_(learner.parameters, job.options.max_grad_norm))
        if math.isfinite(norm) or scale == 1.0:
            break
        set_random_state(job.engine.device, rng)
    return loss, computed, norm


def _gradients(job: _Job, batch: Sequence[Any], learner: Learner, state: State, scale: float) -> tuple[float, int]:
    """Loss and computed tokens of a batch, whose gradients, times the scale, are then in the weights.

    When memory runs out, the batch is computed again in parts of half as many tokens, down to one row. Where even one
    row does not fit, layers keep their inputs only and compute the rest again, in parts as large as at first. Later
    batches go on as the last one ended. The loss and the gradients are the same to rounding.
    """
    engine = job.engine
    rng = random_state(engine.device)
    while True:
        learner.drop_gradients()
        try:
            with checkpointing(engine.network, on=state.checkpointing):
                return backward(engine, batch, micro_tokens=state.micro_tokens, scale=scale, loss=job.loss)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        learner.drop_gradients()
        engine.make_room()
        set_random_state(engine.device, rng)
        if state.micro_tokens > 1:
            tokens = sum(row.tokens for row in batch)
            state.micro_tokens = max(1, min(state.micro_tokens, tokens) // 2)
        elif not state.checkpointing:
            state.checkpointing, state.micro_tokens = True, job.options.micro_tokens
        else:
            raise OutOfMemory(
                f"model {engine.name}: memory does not suffice to train on one row at a time (the longest one has "
                f"{max(row.tokens for row in batch)} tokens). Close other programs, use a smaller model, or shorten "
                "the inputs."
            )

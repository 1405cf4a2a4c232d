"""A training as a function: exact, seeded, and resumable with the optimiser's state.

On a GPU a step's gradients are under way while Python still tells of the step before, so that the card never waits.
Works on an engine and on rows of token ids. What is trained, an adapter or all weights, is a Learner.
Sources: Loshchilov & Hutter, AdamW (2019); Micikevicius et al., Mixed precision training (2018), for the loss's scale.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.engine.checkpointing import checkpointing
from rung.engine.devices import random_state, reading, set_random_state, synchronize
from rung.engine.engine import Engine
from rung.engine.masked_view import MOST_DENSE
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import common_prefix_length
from rung.engine.shared_card import is_crowded
from rung.engine.static_pass import Size
from rung.engine.training_memory import checkpointing_needed, tokens_at_once
from rung.engine.ways import TRAINING
from rung.errors import Diverged, OutOfMemory, first_line
from rung.interrupts import Held, held
from rung.resume import folder_once, is_done
from rung.training import lora, whole
from rung.training.batches import Item, TokenPair, TokenRow, batch_indices, learning_rate_at
from rung.training.captured import CapturedGradients, attends_often, captured_gradients
from rung.training.checkpoints import State, checkpoint_of, claim, restore, save
from rung.training.cross_entropy import can_fuse
from rung.training.learner import Learner
from rung.training.loss import ANSWERS, Loss, add_gradients
from rung.training.optimisers import IN_8_BITS, allocate_moments, optimiser_for, optimiser_of, recorded
from rung.training.together import Alone, Peers
from rung.types import Progress, TrainingOptions

_CHECKPOINT_EVERY_S = 20.0
_LOSS_SCALE = 2.0**10  # in float16
_LARGER = 3  # times as long between checkpoints of all weights, which take seconds to write
_SHARE = 0.8  # of the tokens that fit a GPU
_ALONE = Alone()


@dataclass(frozen=True)
class _Job:
    """What was asked for; the fields are the arguments of `train`. optimiser: as `optimisers.optimiser_of` says."""

    engine: Engine
    rows: Sequence[TokenRow] | Sequence[TokenPair]
    loss: Loss
    options: TrainingOptions
    folder: Path
    until: int
    start: Path | None
    on_step: Callable[[Progress], None]
    beside: Callable[[Path], None]
    peers: Peers
    optimiser: str


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
    peers: Peers = _ALONE,
) -> Path:
    """Trains up to step `until` (None: all steps) and returns the folder of what was learnt, folder/step-N.

    It is a PEFT folder or, where all weights are trained, a folder that transformers loads. The network of the engine
    is left as it was, bit by bit. rows: what batches are drawn from. loss: what is made smaller; by default, the
    loss of the rows' answers. start: a folder of the same kind and shape whose weights are the first ones (None: a
    fresh adapter, or the network's own weights). beside: writes into a folder of all weights what the engine does not
    know and a model by itself needs, such as a tokenizer. peers: the processes that train this together, of which the
    first writes the files.
    Continues from the newest checkpoint in `folder`, bit by bit as if it had never stopped. A folder that has already
    reached the step is returned as it is. What on_step raises ends the training after a checkpoint is written; so does
    Ctrl-C, at the end of the step, unless it comes twice.
    Raises TrainingError when the folder belongs to another training or the network cannot be trained; Diverged when the
    loss is no number; OutOfMemory when memory does not suffice for a batch of one row at a time.
    """
    until = options.steps if until is None else min(until, options.steps)
    result = folder / f"step-{until}"
    if is_done(result):
        return result
    optimiser = optimiser_of(engine, options, folder)
    if peers.any_of(optimiser == IN_8_BITS):  # all of them alike
        optimiser = IN_8_BITS
    if options.full:  # before the claim: what frees memory, or is installed, may then change the optimiser
        whole.check_room(engine, folder, in_8_bits=optimiser == IN_8_BITS)
    claim(folder, options, rows, start, {**loss.record, **recorded(optimiser)})
    if is_crowded(engine.device):
        engine.make_room()
    job, newest = _Job(engine, rows, loss, options, folder, until, start, on_step, beside, peers, optimiser), -1
    while True:
        state = State(micro_tokens=options.micro_tokens)
        try:
            _attempt(job, state, result)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # whoever keeps the error does not keep the optimiser
            # Where it ran out within a step of the optimiser, some weights are a step ahead of others. Of several
            # processes, one does not go back to a checkpoint by itself.
            if job.peers.count > 1 or state.stopped or state.step <= newest or not is_out_of_memory(error):
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
        with _captured(job, learner, state) as captured, held() as interrupts:
            _loop(job, learner, optimiser, state, captured, interrupts)
        if job.peers.rank == 0:
            folder_once(result, lambda scratch: _save(job, learner, scratch))
        job.peers.any_of(False)  # the others wait until it is written
    finally:
        engine.network.eval()
        engine.adapters.end_training()


@contextmanager
def _captured(job: _Job, learner: Learner, state: State) -> Iterator[CapturedGradients | None]:
    """Recorded passes, where this training can have them. What they hold is freed at the end, or for lack of memory."""
    engine, options = job.engine, job.options
    steps = job.until - state.step
    found = None
    if job.loss is ANSWERS and not options.full and not job.peers.in_step:
        often = attends_often(engine, options.steps)  # not the steps to come: a training that goes on does alike
        how: dict[str, Any] = {"steps": steps, "dropout": options.dropout, "often": often}
        found = captured_gradients(engine, learner.weights, state.sizes, **how)
    if found is None:
        yield None
        return
    engine.on_make_room.append(found.close)
    try:
        yield found
    finally:
        engine.on_make_room.remove(found.close)
        found.close()


def _save(job: _Job, learner: Learner, folder: Path) -> None:
    learner.save(folder)
    if job.options.full:
        job.beside(folder)


def _begin(job: _Job, state: State) -> tuple[Learner, torch.optim.Optimizer]:
    """What is trained and its optimiser with all its memory. state: is set to how far the training has come."""
    engine, options = job.engine, job.options
    learner = (whole if options.full else lora).begin(engine, options, job.start)
    optimiser = optimiser_for(job.optimiser, learner.parameters, options, engine.device)
    if restore(job.folder, learner.parameters, optimiser, job.until, state, engine.device):
        learner.spread()
    else:
        _allocate_moments(learner, optimiser)
        state.checkpointing = job.peers.any_of(_is_hopeless(engine, job.rows))  # all of them alike
        state.micro_tokens = _tokens_at_once(job, checkpointing=state.checkpointing)
    return learner, optimiser


def _drop_in_adapters(network: torch.nn.Module) -> None:
    """Turns on the dropout of adapters. The network's own stays off: rows share tokens, and both paths train alike."""
    for module in network.modules():
        if hasattr(module, "lora_dropout"):
            module.train()


def _allocate_moments(learner: Learner, optimiser: torch.optim.Optimizer) -> None:
    """As `optimisers.allocate_moments`, with gradients for it that are dropped again."""
    for parameter in learner.parameters:
        parameter.grad = torch.zeros_like(parameter)
    allocate_moments(optimiser)
    learner.drop_gradients()


def _is_hopeless(engine: Engine, rows: Sequence[TokenRow] | Sequence[TokenPair]) -> bool:
    """Whether memory cannot hold what the layers keep of the longest row. On a CPU nobody says so until it is late."""
    tokens, targets = max((row.tokens, sum(len(own.target) for own in row.rows)) for row in rows)
    return checkpointing_needed(engine, tokens, 0 if can_fuse(engine) else targets)


def _tokens_at_once(job: _Job, *, checkpointing: bool) -> int:
    """Own tokens of rows that go through the network at once: on a GPU as many as memory holds, at most so many that
    the mask of their tree is written out; never fewer than the options say, and on a CPU these."""
    engine, least = job.engine, job.options.micro_tokens
    if engine.device.type != "cuda":
        return least
    scores = {"targets": 0.0} if can_fuse(engine) else {}
    fitting = tokens_at_once(engine, checkpointing=checkpointing, **scores) or least
    shared = common_prefix_length([row.prompt for item in job.rows for row in item.rows])
    return max(least, min(math.isqrt(MOST_DENSE), int(fitting * _SHARE)) - shared)


@dataclass(frozen=True)
class _Gathered:
    """What is known of a step whose gradients are in the optimiser's parameters, clipped.

    loss: of the whole batch, and norm: of the gradient before it was clipped; both 0-dimensional, on the device.
    computed: tokens. random: as of `devices.random_state`, and sizes: as in State, behind the step.
    """

    loss: torch.Tensor
    norm: torch.Tensor
    computed: int
    random: list[torch.Tensor]
    sizes: list[Size]


def _loop(
    job: _Job,
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    state: State,
    captured: CapturedGradients | None,
    interrupts: Held,
) -> None:
    """Steps until the end. Writes a checkpoint every few seconds, at the end, and before what on_step raises, or
    Ctrl-C, passes.

    Where passes are static, the next gradients are under way when a step's loss is read. They change no weight, so
    that a checkpoint holds what it would hold without them. All processes do so, or none: one that waited for its
    checkpoint would else wait for gradients that another never sums.
    """
    options, device = job.options, job.engine.device
    every_s = _CHECKPOINT_EVERY_S * (_LARGER if options.full else 1)
    before, saved = state.seconds, time.monotonic()
    started, following = saved, None
    ahead = not job.peers.any_of(not _goes_ahead(job.engine))

    def keep(found: _Gathered) -> None:
        random = found.random if ahead else random_state(device)
        if job.peers.rank == 0:
            save(job.folder, learner.parameters, optimiser, state, random, found.sizes)

    while state.step < job.until:
        found = following or _gathered(job, learner, state, captured, state.step)
        following = None
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(state.step, options)
        numbers = reading(torch.stack([found.loss.float(), found.norm.float()]))
        if not ahead:
            _check_numbers(job, state.step + 1, *numbers())
        optimiser.step()
        learner.spread()
        if ahead and state.step + 1 < job.until:
            following = _gathered(job, learner, state, captured, state.step + 1)
        loss, norm = numbers()
        _check_numbers(job, state.step + 1, loss, norm)
        if not ahead:
            synchronize(device)
        now = time.monotonic()
        computed, waiting = job.peers.sums([found.computed, not _goes_ahead(job.engine)])
        state.step, state.tokens, state.seconds = state.step + 1, state.tokens + round(computed), before + now - started
        error = _told(job, state, loss) or (KeyboardInterrupt() if interrupts.count else None)
        if job.peers.any_of(error is not None):
            state.stopped = True
            keep(found)
            raise error or KeyboardInterrupt
        if now - saved > every_s or state.step == job.until:
            keep(found)
            saved = time.monotonic()
        ahead = not waiting


def _goes_ahead(engine: Engine) -> bool:
    """Whether the next gradients may be computed before a step's loss is read. In float16 they wait for a norm."""
    return engine.ways.takes("static", TRAINING) and engine.dtype != torch.float16


def _told(job: _Job, state: State, loss: float) -> BaseException | None:
    """Tells the first process's caller how far the training is. What that raises ends the training in all of them."""
    try:
        if job.peers.rank == 0:
            job.on_step(Progress(state.step, job.options.steps, loss, state.tokens, state.seconds))
    except BaseException as error:
        return error
    return None


def _check_numbers(job: _Job, step: int, loss: float, norm: float) -> None:
    for what, number in (("loss", loss), ("norm of the gradient", norm)):
        if not math.isfinite(number):
            raise Diverged(
                f"training in {job.folder}: the {what} is {number} at step {step}. Use a lower learning rate than "
                f"{job.options.learning_rate:g}."
            )


def _gathered(job: _Job, learner: Learner, state: State, captured: CapturedGradients | None, step: int) -> _Gathered:
    """Computes the gradients of a step's batch, sums them over all processes, and clips them.

    Float16 rounds small gradients to zero: there the loss is scaled up, and the gradients are scaled down again. Where
    they are too large for float16 then, they are computed once more without a scale.
    """
    engine, options = job.engine, job.options
    batch: list[Any] = [job.rows[i] for i in batch_indices(len(job.rows), options.batch_size, step, options.seed)]
    weight, share = job.loss.weight(batch), job.peers.share(batch)
    rng = random_state(engine.device)
    for scale in (_LOSS_SCALE, 1.0) if engine.dtype == torch.float16 else (1.0,):
        loss, computed = _gradients(job, share, weight, learner, state, captured, scale)
        learner.gather(scale)
        loss = job.peers.sum_gradients(learner.parameters, loss)
        norm = torch.nn.utils.clip_grad_norm_(learner.parameters, options.max_grad_norm)
        if scale == 1.0 or math.isfinite(float(norm)):
            break
        set_random_state(engine.device, rng)
    return _Gathered(loss, norm, computed, random_state(engine.device), list(state.sizes))


def _gradients(
    job: _Job,
    batch: Sequence[Any],
    weight: int,
    learner: Learner,
    state: State,
    captured: CapturedGradients | None,
    scale: float,
) -> tuple[torch.Tensor, int]:
    """Loss and computed tokens of a batch, whose gradients, times the scale, are then in the weights.

    weight: what the summed loss is divided by. When memory runs out, the batch is computed again in parts of half as
    many tokens, down to one row. Where even one row does not fit, layers keep their inputs only and compute the rest
    again, in parts as large as at first. A fast way that fails is given up, and the batch is computed again in a
    plainer one. Later batches go on as the last one ended. The loss and the gradients are the same to rounding.
    """
    engine = job.engine
    rng = random_state(engine.device)
    while True:
        learner.drop_gradients()
        static = captured if engine.ways.takes("static", TRAINING) and not state.checkpointing else None
        try:
            found = None
            if static is not None:
                found = static.add(batch, micro_tokens=state.micro_tokens, factor=scale / weight)
            if found is not None:
                return found[0] / scale, found[1]
            with checkpointing(engine.network, on=state.checkpointing):
                return add_gradients(
                    engine, batch, micro_tokens=state.micro_tokens, scale=scale, loss=job.loss, weight=weight
                )
        except Exception as error:
            short = is_out_of_memory(error)
            if short and job.peers.in_step:
                raise
            if not short and not _gives_up(engine, first_line(error), static=static is not None):
                raise
        learner.drop_gradients()
        freed = captured is not None and short and captured.closed_for_room()
        engine.make_room()  # which closes what is recorded
        set_random_state(engine.device, rng)
        if freed or not short:  # what was recorded was in the way, not the size of the parts
            continue
        if state.micro_tokens > 1:
            tokens = sum(row.tokens for row in batch)
            state.micro_tokens = max(1, min(state.micro_tokens, tokens) // 2)
        elif not state.checkpointing:
            state.checkpointing, state.micro_tokens = True, job.options.micro_tokens
        elif not engine.waits_for_others():
            raise OutOfMemory(
                f"model {engine.name}: memory does not suffice to train on one row at a time (the longest one has "
                f"{max(row.tokens for row in batch)} tokens). Close other programs, use a smaller model, or shorten "
                "the inputs."
            )


def _gives_up(engine: Engine, reason: str, *, static: bool) -> bool:
    """Gives up the fastest way that was taken, because it failed. Returns False where it was the plain one."""
    way = "static" if static else "fused" if engine.path == "tree" and engine.ways.fused else None
    if way is None:
        return False
    engine.ways.give_up(way, reason, of=TRAINING if static else "")
    return True

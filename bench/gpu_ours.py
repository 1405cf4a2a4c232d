"""rung itself on one shape: equal to transformers + PEFT first, then training, answering and adapters, with all it has.

Training is `rung.training.loop.train`, answering `rung.engine.decode.decode`, as in a run.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import gpu_equality
from gpu_limits import operations
from gpu_part import FEW_AND_MANY, Given, measured, ms_per_token, peak_gb, reset_peak
from gpu_peers import asked_of
from gpu_shapes import ALPHA, RANK, lora_config, make_network, prompts_of, read_bytes
from rung.engine.continuous import Running
from rung.engine.decode import Job, decode
from rung.engine.engine import Engine
from rung.engine.live_rows import LiveRow
from rung.engine.loading_check import checked_engine
from rung.engine.tree_engine import TreeEngine
from rung.engine.variables import NAMES
from rung.engine.ways import Ways
from rung.training.batches import TokenRow, batch_indices
from rung.training.loop import train
from rung.types import Progress, TrainingOptions

SEED = 0
STEPS = 400
"""Steps that a training is made for. It is stopped earlier."""
MANY_STEPS = 20_000
"""Steps that a training is made for whose layers are to be compiled: fewer would not pay for it."""
FIRST = 10
"""Steps whose time is told apart: graphs are recorded and steps compiled in them."""


class _Enough(Exception):
    """The training has run for long enough."""


def engine_of(given: Given, dtype: torch.dtype) -> Engine:
    """An engine over random weights, checked as at loading."""
    network = make_network(given.shape, given.device, dtype, attention="eager")
    return checked_engine(network, given.size)


def run(given: Given) -> None:
    """The measures of kind `rung`."""
    started = time.perf_counter()
    engine = engine_of(given, given.dtype)
    ready_s = time.perf_counter() - started
    rows = given.rows()
    large = given.size == "8b"
    works: dict[str, Any] = {
        "equality": (lambda: gpu_equality.compared(given, engine, rows[:4]), 25 if large else 10),
        "equality_float32": (lambda: gpu_equality.in_float32(given, rows[:4], engine_of), 10),
        "training_32": (lambda: training(given, engine, rows, 32), 20),
        "training_8": (lambda: training(given, engine, rows, 8, seconds=8.0), 12),
        "prompts": (lambda: prompts(given, engine, rows), 20 if large else 10),
        "request": (lambda: request(given, engine, rows), 6),
        "adapters": (lambda: adapters(given, engine, rows), 15),
        "served": (lambda: served(given, engine, rows), 10),
        "engine": (lambda: {"ready_s": ready_s, **described(engine)}, 0),
    }
    measured(given, works)


def described(engine: Engine) -> dict[str, Any]:
    """How the engine computed: its path, its ways, and those that were given up, with the reasons."""
    return {
        "path": engine.path,
        "reason": engine.reason,
        "ways": list(engine.ways.taken),
        "given_up": dict(engine.ways.given_up),
    }


# ---- training -------------------------------------------------------------------------------------


def training(
    given: Given,
    engine: Engine,
    rows: Sequence[TokenRow],
    batch: int,
    *,
    seconds: float = 20.0,
    most: int = 160,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Examples a second over the last half of the steps; seconds of the first ones; TFLOP/s of what was computed."""
    if given.small:
        seconds, most = 6.0, 6
    ends: list[float] = []
    losses: list[float] = []
    reset_peak(given.torch_device)
    options = TrainingOptions(1e-4, steps=steps, batch_size=batch, rank=RANK, alpha=ALPHA, seed=SEED)
    started = time.perf_counter()

    def clock(progress: Progress) -> None:
        ends.append(time.perf_counter())
        losses.append(progress.loss)
        if len(ends) >= most or (ends[-1] - started > seconds and len(ends) >= 4):
            raise _Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(engine, rows, options, Path(folder) / "training", on_step=clock)
    half = len(ends) // 2
    examples, work, tokens = 0, 0.0, 0
    for step in range(half, len(ends)):
        chosen = [rows[i] for i in batch_indices(len(rows), batch, step, SEED)]
        flops, computed = operations(given.shape, chosen)
        examples, work, tokens = examples + len(chosen), work + flops, tokens + computed
    lasted = ends[-1] - ends[half - 1]
    return {
        "examples_per_s": examples / lasted,
        "tflops": work / lasted / 1e12,
        "tokens_of_a_batch": round(tokens / (len(ends) - half)),
        "steps": len(ends),
        "first_steps_s": ends[min(FIRST, len(ends)) - 1] - started,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_gb": peak_gb(given.torch_device),
        "given_up": dict(engine.ways.given_up),
    }


# ---- answering ------------------------------------------------------------------------------------


def answered(engine: Engine, jobs: Sequence[Job]) -> float:
    """Seconds to answer jobs, none of which has an end token."""
    started = time.perf_counter()
    with torch.inference_mode():
        count = 0
        for part in decode(engine, jobs, ()):
            count += sum(len(ids) for _, ids in part if ids is not None)
    if count != sum(job.most for job in jobs):
        raise RuntimeError(f"{count} tokens were answered, and {sum(job.most for job in jobs)} were asked for")
    return time.perf_counter() - started


def prompts(given: Given, engine: Engine, rows: Sequence[TokenRow], *, times: int = 2) -> dict[str, Any]:
    """Seconds to answer prompts that share a prefix, read anew each time; `first_s` with all that is made at first."""
    count, new = asked_of(given)
    jobs = [Job(prompt, new) for prompt in prompts_of(rows, count)]
    reset_peak(given.torch_device)
    found = []
    for _ in range(times + 1):
        engine.clear_prefix_cache()
        found.append(answered(engine, jobs))
    return {
        "seconds": min(found[1:]),
        "first_s": found[0],
        "prompts": count,
        "new_tokens": new,
        "peak_gb": peak_gb(given.torch_device),
    }


def request(given: Given, engine: Engine, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Milliseconds of each token of one request. Both lengths have steps enough to be recorded."""
    few, many = (4, 20) if given.small else FEW_AND_MANY
    prompt = list(rows[0].prompt)
    engine.clear_prefix_cache()
    whole_first = answered(engine, [Job(prompt, many)])
    engine.clear_prefix_cache()
    whole = answered(engine, [Job(prompt, many)])
    return {
        "ms_per_token": ms_per_token(lambda new: answered(engine, [Job(prompt, new)]), few, many),
        "whole_s": whole,
        "first_s": whole_first,
        "new_tokens": many,
        "read_bytes": read_bytes(engine.network),
    }


def adapters(given: Given, engine: Engine, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """A batch with four adapters among its rows against the same batch on the base; measured in turn."""
    count, new = (8, 4) if given.small else (64, 64)
    asked = prompts_of(rows, count)
    with tempfile.TemporaryDirectory() as place:
        folders = [_random_adapter(engine, Path(place) / str(number), number) for number in range(4)]
        kinds: dict[str, Callable[[int], str | None]] = {"base": lambda _: None, "mixed": lambda i: folders[i % 4]}
        times: dict[str, list[float]] = {"base": [], "mixed": []}
        for _, kind in itertools.product(range(2 if given.small else 4), kinds):
            times[kind].append(answered(engine, [Job(p, new, adapter=kinds[kind](i)) for i, p in enumerate(asked)]))
        for folder in folders:
            engine.forget_adapter(folder)
    base, mixed = min(times["base"]), min(times["mixed"])
    return {"base_s": base, "mixed_s": mixed, "ratio": mixed / base, "rows": count, "new_tokens": new}


def served(given: Given, engine: Engine, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Seconds of requests that come one after the other, one in each round, as in `rung serve`, against the same as one
    batch; and a token of one request alone."""
    assert isinstance(engine, TreeEngine)
    count, new = (8, 8) if given.small else (64, 64)
    asked = prompts_of(rows, count)
    found = [_served(engine, asked, new) for _ in range(3)]
    batch = min(answered(engine, [Job(prompt, new) for prompt in asked]) for _ in range(2))
    few, many = (4, 20) if given.small else FEW_AND_MANY
    return {
        "seconds": min(found[1:]),
        "first_s": found[0],
        "batch_s": batch,
        "ms_per_token": ms_per_token(lambda tokens: _served(engine, asked[:1], tokens), few, many),
        "requests": count,
        "new_tokens": new,
    }


def _served(engine: TreeEngine, asked: Sequence[list[int]], new: int) -> float:
    running, rows = Running(engine), [LiveRow(Job(prompt, new), ()) for prompt in asked]
    waiting, started = list(rows), time.perf_counter()
    while waiting or running.waiting or running.running:
        if waiting:
            running.add(waiting.pop(0))
        running.admit()
        running.choose()
        running.advance()
    lasted = time.perf_counter() - started
    if lengths := {len(row.answer) for row in rows} - {new}:
        raise RuntimeError(f"answers have {lengths} tokens, and {new} were asked for")
    return lasted


def _random_adapter(engine: Engine, folder: Path, seed: int) -> str:
    config = lora_config()
    config.init_lora_weights = False
    network = engine.adapters.begin_training(config, seed)
    network.save_pretrained(folder, selected_adapters=["in_training"], save_embedding_layers=False)
    engine.adapters.end_training()
    return str(folder / "in_training")


# ---- ways -----------------------------------------------------------------------------------------


def run_ways(given: Given) -> None:
    """The measures of kind `ways`: each way by itself, from the plain one on, on one engine."""
    engine = engine_of(given, given.dtype)
    rows = given.rows()
    # Compiling for a CPU takes long and says nothing of a card.
    last = 3 if given.small else 4
    works = {
        "+".join(NAMES[:number]) or "plain": (
            lambda number=number: _way(given, engine, rows, NAMES[:number]),
            60 if number == 3 else 15,
        )
        for number in range(last)
    }
    measured(given, {**{name: (lambda: {}, 0) for name in given.measures}, **works})


def _way(given: Given, engine: Engine, rows: Sequence[TokenRow], names: Sequence[str]) -> dict[str, Any]:
    before = dict(engine.ways.given_up)  # at loading, or by an earlier way
    engine.ways = Ways(**{name: name in names for name in NAMES})
    how: dict[str, Any] = {"seconds": 6.0}
    if "compiled" in names:
        how = {"seconds": 45.0, "steps": MANY_STEPS}
    trained = training(given, engine, rows, 32, most=40, **how)
    answers = prompts(given, engine, rows, times=1)
    alone = request(given, engine, rows)
    return {
        "examples_per_s": trained["examples_per_s"],
        "first_steps_s": trained["first_steps_s"],
        "training_peak_gb": trained["peak_gb"],
        "prompts_s": answers["seconds"],
        "prompts_first_s": answers["first_s"],
        "ms_per_token": alone["ms_per_token"],
        "served_s": _served(engine, prompts_of(rows, 8 if given.small else 64), 16),
        "given_up": dict(engine.ways.given_up),
        "given_up_before": before,
    }

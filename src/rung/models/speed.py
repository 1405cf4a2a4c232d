"""How fast a model is on this machine, and what it knows of its own computing.

A local model is timed once per machine: the measurement is kept in the cache folder and rounded coarsely, so that the
same task gets the same plan every time. Where the machine was busy then, a later and clearly faster one replaces it. So
is the type kept that a CPU computes in. Any other model is estimated from two answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.cache import cache_folder
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import first_line
from rung.records import write_json
from rung.resume import once_for_all
from rung.types import Decoding, Generation, Measured, Message, Model, Request, Speed

if TYPE_CHECKING:
    import torch

    from rung.engine.engine import Engine
    from rung.engine.ways import Ways

_STEP = 1.25  # speeds are rounded to powers of it
CLEARLY_FASTER = _STEP**2
_QUICK_TOKENS, _QUICK_S = 64, 0.3  # tokens of a quick measurement, and seconds that it may take
_UNKNOWN = Speed(read=1000.0, write=100.0, train=300.0)  # assumed where a model gives no answer to time
_WRITE_SHARE = 1 / 6  # of the speed of reading, where writing cannot be timed
_TRAIN_SHARE = 1 / 3  # of the speed of reading, where training cannot be timed: a step is about three forward passes
_PROBE_WORDS = 400
_PROBE_ANSWER = 64  # tokens


def speed_of(model: Model) -> Speed:
    """Tokens per second of any model: as it measured itself, else estimated from two answers, which it may charge for.

    An estimate that is to stay the same must be kept by the caller.
    """
    return model.speed() if isinstance(model, Measured) else estimated_speed(model)


def answers_key(model: Model) -> str:
    """A file name for whatever depends on the model's answers: equal keys give equal answers."""
    if isinstance(model, Measured):
        return model.answers_key
    name = re.sub(r"[^\w.-]+", "-", model.name).strip("-")
    return f"{name[:40]}-{hashlib.sha256(f'{model.name}:{model.version}'.encode()).hexdigest()[:16]}"


def thought_tokens(model: Model) -> int:
    """Tokens at most that the model writes before an answer because it always thinks; 0 where it says nothing of it."""
    return int(getattr(model, "thought_tokens", 0))


def count_error(model: Model) -> float:
    """How many times as many tokens a text may have as the model's `count_tokens` says; 1 where it counts them."""
    return float(getattr(model, "count_error", 1.0))


def describe(model: Model) -> dict[str, Any]:
    """Hardware and versions, for the record; empty for a model that says nothing of it."""
    return model.describe() if isinstance(model, Measured) else {}


def estimated_speed(model: Model) -> Speed:
    """From the time of a long prompt with a short answer, and of a short prompt with a long answer."""
    reading = _timed(model, "word " * _PROBE_WORDS, 1)
    writing = _timed(model, "Count from 1 to 100, in words.", _PROBE_ANSWER)
    (read, read_s), (write, write_s) = reading, writing
    if read.tokens_in == 0:
        return _UNKNOWN
    reads = read.tokens_in / read_s
    writes = write.tokens_out / write_s if write.tokens_out > 1 else reads * _WRITE_SHARE
    return _rounded(Speed(reads, writes, reads * _TRAIN_SHARE))


def _timed(model: Model, text: str, most: int) -> tuple[Generation, float]:
    """An answer and its seconds: by the clock, or as the model reports them where that is more."""
    started = time.perf_counter()
    (generation,) = model.generate([Request((Message("user", text),), Decoding(most))])
    return generation, max(time.perf_counter() - started, generation.latency_s, 1e-6)


def timed_speed(ask: Callable[[Sequence[Request]], Sequence[Generation]], rows: int, words: int) -> Speed:
    """Of what answers many requests at once: `rows` prompts of so many words that share nothing, then answers of some
    length to as many short ones.

    Training is taken as a share of reading. Raises what `ask` raises.
    """

    def seconds(texts: Sequence[str], most: int) -> tuple[float, Sequence[Generation]]:
        started = time.perf_counter()
        answers = ask([Request((Message("user", text),), Decoding(most)) for text in texts])
        return max(time.perf_counter() - started, 1e-6), answers

    long = [f"{i} {i} " + f"word{i} " * words for i in range(rows)]
    short = [f"{i} Count from {i} to 100, in words." for i in range(rows)]
    seconds(short, 1)  # the first questions build what later ones share
    reading_s, read = seconds(long, 1)
    writing_s, written = seconds(short, _PROBE_ANSWER)
    reads = sum(g.tokens_in for g in read) / reading_s
    tokens = sum(g.tokens_out for g in written)
    if not reads:
        return _UNKNOWN
    writes = tokens / writing_s if tokens > rows else reads * _WRITE_SHARE
    return _rounded(Speed(reads, writes, reads * _TRAIN_SHARE))


# ---- the local model ------------------------------------------------------------------------


def kept_speed(
    key: str, machine: str, measure: Callable[[], Speed], quick: Callable[[Speed], float] = lambda _: 0.0
) -> Speed:
    """The speed of this model on this machine, from the cache folder; measured where there is none.

    key: the model and its arithmetic. machine: what the caller knows of the device. Several processes measure in turn,
    and the first one's result counts for all. quick: from the kept speed, a cheap measurement of the speed of reading.
    Where it is faster by CLEARLY_FASTER, everything is measured again and the faster values are kept from then on.
    """
    path = _speed_file(key, machine)
    new = False

    def make() -> dict[str, Any]:
        nonlocal new
        new = True
        speed = _rounded(measure())
        rates = {"read": speed.read, "write": speed.write, "train": speed.train}
        return {**rates, "machine": f"{machine} {machine_kind()}"}

    try:
        record = once_for_all(path, make)
    except OSError:  # a cache that cannot be written
        record = make()
    kept = Speed(record["read"], record["write"], record["train"])
    if new or quick(kept) < CLEARLY_FASTER * kept.read:
        return kept
    again = make()
    if again["read"] < CLEARLY_FASTER * kept.read:
        return kept
    again |= {name: max(again[name], record[name]) for name in ("read", "write", "train")}
    with contextlib.suppress(OSError):
        write_json(path, again)
    return Speed(again["read"], again["write"], again["train"])


@dataclass(frozen=True)
class KeptSince:
    """A speed that is kept. file: that keeps it. when: it was measured, local time, by minutes. mtime_ns: exactly."""

    file: Path
    when: str
    mtime_ns: int


def kept_since(model: Model) -> KeptSince | None:
    """What is kept of a model's speed; None where it is measured when it is asked for."""
    timed_as = getattr(model, "timed_as", None)
    if timed_as is None:
        return None
    try:
        written = (file := _speed_file(*timed_as)).stat()
    except OSError:
        return None
    return KeptSince(file, datetime.fromtimestamp(written.st_mtime).strftime("%Y-%m-%d %H:%M"), written.st_mtime_ns)


def _speed_file(key: str, machine: str) -> Path:
    return cache_folder() / "speed" / f"{key}-{_hash(f'{machine} {machine_kind()}')}.json"


def ways_part(ways: Ways, device: torch.device) -> str:
    """What a key of a kept speed says of the ways that are taken; nothing where they are the usual ones there."""
    from rung.engine.ways import usual_ways

    return "" if ways.taken == usual_ways(device) else f"-{'+'.join(ways.taken) or 'plain'}"


def kept_dtype(device: str) -> torch.dtype:
    """`fastest_dtype`, from the cache folder where a CPU was timed before: a run goes on in the type it began in."""
    import torch

    from rung.engine.devices import fastest_dtype

    if torch.device(device).type != "cpu":
        return fastest_dtype(device)
    machine = f"{machine_kind()} torch {torch.__version__}"

    def make() -> dict[str, Any]:
        return {"dtype": str(fastest_dtype(device)).removeprefix("torch."), "machine": machine}

    try:
        record = once_for_all(cache_folder() / "dtype" / f"{_hash(machine)}.json", make)
    except OSError:  # a cache that cannot be written
        record = make()
    dtype: torch.dtype = getattr(torch, record["dtype"])
    return dtype


def quick_read_speed(engine: Engine, kept: Speed) -> float:
    """Tokens read per second in two short passes, which err on the slow side; 0 where they would take too long."""
    if 2 * _QUICK_TOKENS / kept.read > _QUICK_S:
        return 0.0
    counted = engine.computed_tokens
    try:
        return _read_speed(engine, rows=1, length=_QUICK_TOKENS, times=1)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return 0.0
    finally:
        engine.computed_tokens = counted


def measured_speed(engine: Engine) -> Speed:
    """Timed on a few hundred tokens: prefill, decode steps of a small batch, and training steps; a few seconds."""
    import torch

    counted = engine.computed_tokens
    read = _read_speed(engine)
    write = _write_speed(engine)
    train = read * _TRAIN_SHARE
    try:
        with torch.random.fork_rng(devices=[]):
            if engine.adapters.trainable:
                train = _train_speed(engine)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    engine.computed_tokens = counted  # the measurement is not part of any stage's work
    engine.clear_prefix_cache()
    return Speed(read, write, train)


def _read_speed(engine: Engine, *, rows: int = 4, length: int = 64, times: int = 3) -> float:
    import torch

    given = [(row[:-1], row[-1:]) for row in _probe_rows(engine, rows, length)]

    def work() -> int:
        with torch.inference_mode():
            return engine.scores(given)[1]

    return _best_rate(engine, work, times=times)


def _write_speed(engine: Engine) -> float:
    from rung.engine.decode import Job, decode

    rows = 16 if engine.device.type == "cpu" else max(16, engine.limits.rows // 4)
    prompts = _probe_rows(engine, rows=rows, length=16)

    def seconds(most: int) -> float:
        started = time.perf_counter()
        for _ in decode(engine, [Job(prompt, most) for prompt in prompts], ()):
            pass
        return time.perf_counter() - started  # ids are on the CPU: the device is done

    seconds(2)
    steps = 8
    pairs = [(seconds(1), seconds(1 + steps)) for _ in range(2)]
    spent = min(long for _, long in pairs) - min(short for short, _ in pairs)
    return rows * steps / max(spent, 1e-4)


def _train_speed(engine: Engine) -> float:
    """Of recorded passes where trainings have them: on a GPU, which is busy only with more rows than a CPU."""
    from peft import LoraConfig

    from rung.engine.target_modules import adaptable_layers
    from rung.engine.ways import TRAINING
    from rung.training.batches import TokenRow
    from rung.training.captured import captured_gradients
    from rung.training.loss import backward

    length, target = 48, 16
    count = 32 if engine.ways.takes("static", TRAINING) else 4
    probe = _probe_rows(engine, count, length + target)
    rows = [TokenRow(str(i), tuple(p[:length]), tuple(p[length:])) for i, p in enumerate(probe)]
    config = LoraConfig(r=16, lora_alpha=32, target_modules=adaptable_layers(engine.network), task_type="CAUSAL_LM")
    engine.adapters.begin_training(config, 0)
    weights = [p for p in engine.network.parameters() if p.requires_grad]
    recorded = captured_gradients(engine, weights, [], steps=count, dropout=0.0)
    factor = 1 / (count * target)

    def work() -> int:
        found = recorded.add(rows, micro_tokens=4096, factor=factor) if recorded is not None else None
        return found[1] if found is not None else backward(engine, rows, micro_tokens=1024)[1]

    try:
        try:
            return _best_rate(engine, work, times=2)
        except Exception as error:  # a training gives up what it cannot do; here it is timed in the plain way
            if recorded is None or is_out_of_memory(error):
                raise
            recorded.close()
            engine.ways.give_up("static", first_line(error), of=TRAINING)
            recorded = None
            return _best_rate(engine, work, times=2)
    finally:
        if recorded is not None:
            recorded.close()
        engine.adapters.end_training()


def _probe_rows(engine: Engine, rows: int, length: int) -> list[list[int]]:
    """Rows of ordinary token ids that share nothing."""
    usable = min(1000, engine.vocabulary)
    return [[(17 * i + 31 * row) % usable for i in range(length)] for row in range(rows)]


def _best_rate(engine: Engine, work: Callable[[], int], *, times: int) -> float:
    """Tokens per second of the fastest of several runs, after one that is not timed."""
    from rung.engine.devices import synchronize

    work()
    best = 0.0
    for _ in range(times):
        synchronize(engine.device)
        started = time.perf_counter()
        tokens = work()
        synchronize(engine.device)
        best = max(best, tokens / max(time.perf_counter() - started, 1e-6))
    return best


def _rounded(speed: Speed) -> Speed:
    return Speed(_coarse(speed.read), _coarse(speed.write), _coarse(speed.train))


def _coarse(rate: float) -> float:
    """The nearest power of 1.25, with three digits."""
    return float(f"{_STEP ** round(math.log(rate, _STEP)):.3g}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def machine_kind() -> str:
    """The kind of machine: equal machines may share a cache folder and a measurement."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{platform.system()} {processor} {os.cpu_count()}"

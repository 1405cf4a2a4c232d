"""What a run is going to do and spend, said before anything is spent.

Token counts come from the task's own texts. Seconds come from those counts and one short timing of
the machine; they are shown and held against the budget, and decide nothing else, so that two runs
with the same seed do the same work.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import __version__
from rung.strategies import STRATEGIES
from rung.types import Decoding, Document, Family, Retriever, Split, Task

if TYPE_CHECKING:
    from rung.models.local import LocalModel

_DEFAULT_MINUTES = 10.0
_TRAINING_SHARE = 0.3  # of the minutes, for one adapter
_NOMINAL_FLOPS = {"cpu": 1.3e11, "cuda": 1.0e14}
_DIAGNOSED = 30  # examples that are answered again under each intervention
_SWEEP = 0.12  # of a training, for the learning rates that are not chosen


@dataclass(frozen=True)
class Step:
    """One strategy of the plan. tokens: prompt and answer tokens through the network; seconds: an estimate."""

    name: str
    family: Family
    applies: bool
    why: str
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """compute_tokens: what one training may put through the network, from the budget and the model's size alone.

    experiments: the diagnosis and the pilot, which build nothing that could be shipped.
    """

    steps: tuple[Step, ...]
    experiments: tuple[Step, Step]
    decoding: Decoding
    compute_tokens: int
    test_seconds: float
    sizes: dict[str, int]
    detectable: dict[str, float]
    usd_per_hour: float = 0.0

    def record(self) -> dict[str, Any]:
        """As plan.json holds it."""
        everything = [*self.steps, *self.experiments]
        seconds = sum(step.seconds for step in everything) + self.test_seconds
        return {
            "steps": [asdict(step) for step in self.steps],
            "experiments": [asdict(step) for step in self.experiments],
            "calls": sum(step.calls for step in everything),
            "tokens": sum(step.tokens for step in everything),
            "seconds": round(seconds, 1),
            "usd": round(self.usd_per_hour * seconds / 3600, 4),
            "sizes": self.sizes,
            "minimum_detectable_difference": self.detectable,
            "max_new_tokens": self.decoding.max_new_tokens,
        }


def make_plan(
    task: Task,
    split: Split,
    model: LocalModel,
    *,
    passages: Sequence[Document],
    retriever: Retriever | None,
    only: Sequence[str] = (),
) -> Plan:
    """The strategies that apply, what each will spend, and the smallest difference each set can show."""
    from rung.diagnosis.interventions import SAMPLES, THINKING_TOKENS
    from rung.evaluation.statistics import minimum_detectable_difference
    from rung.solutions.answer import prepare
    from rung.strategies.fine_tuning import MAX_EPOCHS
    from rung.trials.workshop import SCREEN
    from rung.training.lora import LoraOptions, steps_per_epoch
    from rung.types import Solution

    decoding = Decoding(_answer_room(split, model), seed=task.seed)
    sample = split.train[:32]
    plain = Solution("plan", task.instruction, decoding)
    requests, _ = prepare(plain, model, [e.query for e in sample])
    prompt = sum(len(model.encode(r.messages)) for r in requests) / len(sample)
    instruction = model.count_tokens(task.instruction) + 12
    answer = sum(len(model.encode_answer(e.output)) for e in sample) / len(sample)
    passage = sum(model.count_tokens(p.text) for p in passages[:64]) / max(1, len(passages[:64]))
    own = max(8.0, prompt - instruction)  # tokens that the shared beginning does not cover
    minutes = task.budget.minutes or _DEFAULT_MINUTES
    compute_tokens = int(
        minutes * 60 * _TRAINING_SHARE * _NOMINAL_FLOPS[model.device.type] / (4 * model.computed_parameters)
    )
    forward = _tokens_per_second(model)
    # A decoded token costs more than a read one: a step of a small batch is bound by memory and overhead.
    decode = forward / 6
    train_rate = forward / 3
    dev, screen = len(split.dev), min(SCREEN, len(split.dev))

    def answering(calls: int, tokens: float) -> tuple[int, int, float]:
        out = decoding.max_new_tokens
        return calls, int(calls * (tokens + out)), calls * (tokens / forward + 0.6 * out / decode)

    def training(tokens: float) -> tuple[int, int, float]:
        per_epoch = len(split.train) * (tokens + answer)
        per_epoch += instruction * steps_per_epoch(len(split.train), LoraOptions.batch_size)
        epochs = max(1, min(MAX_EPOCHS, compute_tokens / per_epoch))
        calls, read, seconds = answering(int(dev * epochs), tokens)
        trained = per_epoch * (epochs * 0.8 + epochs * _SWEEP)
        return calls, int(read + trained), seconds + trained / train_rate

    shot = own + answer
    costs: dict[str, tuple[int, int, float]] = {
        "zero_shot": answering(dev, own),
        "constrained": answering(dev, own),
        "few_shot": _sum(answering(2 * screen + dev, own), answering(screen, 6 * shot + own)),
        "rag": answering(4 * screen + dev, 3 * passage + own),
        "lora": training(own),
        "rag_lora": training(own + 3 * passage),
    }
    steps = []
    for name, (family, _) in STRATEGIES.items():
        why = _why_not(name, task, only)
        steps.append(Step(name, family, not why, why, *(costs[name] if not why else ())))
    dearer = [step for step in steps if step.applies and step.family != "prompt"]
    prompts = any(step.applies and step.family == "prompt" for step in steps)
    asks = bool(dearer) and prompts
    pilots = asks and any(step.name == "lora" for step in dearer)
    again = _sum(answering(_DIAGNOSED * (4 + SAMPLES), shot), (0, 0, _DIAGNOSED * THINKING_TOKENS / decode))
    lora = costs["lora"]
    experiments = (
        Step("diagnosis", "prompt", True, "", *again)
        if asks
        else Step("diagnosis", "prompt", False, "nothing dearer than a prompt is tried"),
        Step("pilot", "fine-tune", True, "", lora[0] // 4, lora[1] // 4, lora[2] / 4)
        if pilots
        else Step("pilot", "fine-tune", False, "no fine-tuning is tried"),
    )
    longest = max((own + 3 * passage) if passages else own, 4 * shot)
    families = len({step.family for step in steps if step.applies})
    test = len(split.test)
    test_seconds = answering(families * test, longest)[2] + 8 * families * 0.5
    units = {name: len({split.groups.get(i, i) for i in ids}) for name, ids in _ids(split).items()}
    return Plan(
        steps=tuple(steps),
        experiments=experiments,
        usd_per_hour=(task.price.usd_per_hour or 0.0) if task.price is not None else 0.0,
        decoding=decoding,
        compute_tokens=compute_tokens,
        test_seconds=test_seconds,
        sizes={"train": len(split.train), "dev": dev, "test": test},
        detectable={
            name: minimum_detectable_difference(units[name], comparisons=max(1, math.comb(families, 2)))
            for name in ("dev", "test")
        },
    )


def _ids(split: Split) -> dict[str, tuple[str, ...]]:
    return {"dev": tuple(e.id for e in split.dev), "test": split.test.ids}


def _sum(a: tuple[int, int, float], b: tuple[int, int, float]) -> tuple[int, int, float]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _why_not(name: str, task: Task, only: Sequence[str]) -> str:
    if only and name not in only:
        return "left out by --only"
    if name == "constrained" and not (task.labels or task.schema or task.pattern):
        return "the task has no labels, schema or pattern"
    if name in ("rag", "rag_lora") and task.corpus is None:
        return "the task has no corpus"
    return ""


def _answer_room(split: Split, model: LocalModel) -> int:
    """New tokens an answer may have: the longest answer of train and a quarter more."""
    longest = max(len(model.encode_answer(e.output)) for e in split.train)
    return longest + max(4, longest // 4)


def _tokens_per_second(model: LocalModel) -> float:
    """Prompt tokens a second, timed on 256 of them; the better of two."""
    import torch

    from rung.engine.prefix_tree import grow

    tree = grow([[(17 * i + j) % min(1000, model.engine.vocabulary) for i in range(64)] for j in range(4)])
    best = float("inf")
    with torch.inference_mode():
        for _ in range(2):
            started = time.perf_counter()
            model.engine.hidden_of(tree)
            best = min(best, time.perf_counter() - started)
    return 256 / best


def file_hashes(task: Task) -> dict[str, str]:
    """SHA-256 of every file of examples and documents that is read, by path relative to task.yaml where it can be."""
    from rung.data.corpus import texts_of

    examples = task.examples
    files = list(examples) if isinstance(examples, tuple) else [p for part in examples.values() for p in part]
    if task.corpus is not None:
        files += texts_of(task.corpus)
    if task.metric.startswith("python:"):
        files.append(Path(task.metric.removeprefix("python:").rpartition(":")[0]))
    return {os.path.relpath(p, task.path.parent): _sha256(p) for p in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def machine(model: LocalModel) -> dict[str, Any]:
    """Versions and hardware, for task.json."""
    from importlib.metadata import version

    import torch

    packages = ("torch", "transformers", "peft", "llguidance", "bm25s", "scipy", "statsmodels")
    return {
        "versions": {"rung": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": model.device.type,
        },
    }

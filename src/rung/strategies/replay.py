"""Replay: trains a fine-tuned solution on for a little, so that it keeps the base model's general skills."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rung.errors import ModelError, TrainingError, about_its_prompt
from rung.resume import is_done, once_for_all, record_of
from rung.strategies.course import REPAIR_SHARE, Course, epoch_of, made_from, onward_steps
from rung.strategies.fit import HISTORY, fit
from rung.strategies.learning_rate import OF_ADAPTERS, OF_WEIGHTS
from rung.strategies.registry import REPAIRED, Cost
from rung.strategies.training_rows import training_rows, without_long
from rung.trials.workshop import Workshop, sample_of
from rung.types import Decoding, Message, Request, Solution, TrainingOptions, TrainingRow


@dataclass(frozen=True)
class Onward:
    """How a trained solution is trained on.

    steps, rate: shares of the steps, and of the learning rate, of its training. general: whether half of each
    batch is general prompts with the base model's own answers; else all of it is the task's.
    """

    steps: float
    rate: float
    general: bool


REPAIR = Onward(REPAIR_SHARE, rate=0.5, general=True)
"""For general skills: so little that the task is not unlearnt."""

_TOKENS = 64  # of an answer of the base model's


def replayed(workshop: Workshop, tuned: Solution) -> Solution:
    """The solution trained on, with the base model's own answers to general prompts in half of each batch.

    A tenth of the steps of its training, at half of its learning rate. Dev is answered once, at the end.
    Raises TrainingError when the base model answers none of the general prompts.
    Source: Rolnick et al., Experience replay for continual learning (2019); Scialom et al., Fine-tuned language models
    are continual learners (2022).
    """
    return trained_on(workshop, tuned, replace(tuned, name=REPAIRED.format(tuned.name)), REPAIR)


def trained_on(workshop: Workshop, tuned: Solution, plain: Solution, how: Onward) -> Solution:
    """`plain` with the adapter of `tuned`, trained on with the prompts of `plain` for the train examples.

    Dev is answered once, at the end, and kept as `fit` does.
    """
    assert tuned.adapter is not None, "only a fine-tuned solution can be trained on"
    plain, adapter = replace(plain, adapter=None), workshop.folder / "adapter"
    if is_done(adapter):
        return replace(plain, adapter=str(adapter))
    before = _longest_training(Path(tuned.adapter).parent)
    full = bool(before.get("all_weights"))
    usual = OF_WEIGHTS.grid[0] if full else workshop.learning_rate or OF_ADAPTERS.grid[0]
    rate = float(before.get("learning_rate", usual))
    steps = onward_steps(_steps(before), how.steps)
    others = _general_rows(workshop) if how.general else []
    wanted = max(len(others), steps * TrainingOptions.batch_size // (2 if others else 1))
    examples = sample_of(workshop.inputs.train, wanted, workshop.inputs.task.seed)
    own, left_out = without_long(workshop, training_rows(workshop, plain, examples))
    rows = _mixed(own, others) if others else own
    course = Course(steps, 1, workshop.inputs.dev, len(rows), epoch_of(len(rows)), start=Path(tuned.adapter), full=full)
    source = "half of that" if how.rate == 0.5 else "that" if how.rate == 1.0 else f"{how.rate:g} times that"
    slower = replace(workshop, learning_rate=how.rate * rate, learning_rate_from=f"{source} of {tuned.name}")
    return replace(plain, adapter=str(fit(slower, plain, rows, course, left_out)))


def _longest_training(folder: Path) -> dict[str, Any]:
    """The record of the training with most steps, of the solution in that folder and those that it was made from."""
    own = record_of(folder / "training" / HISTORY)
    before = made_from(folder)
    earlier = _longest_training(folder.parent / before) if before is not None else {}
    return earlier if _steps(earlier) > _steps(own) else own


def _steps(history: Mapping[str, Any]) -> int:
    return int(history.get("stopped_at", history.get("steps", 0)))


def replay_prompts() -> list[str]:
    """General prompts. None of them is in the suite that general skills are measured with."""
    return files("rung.strategies").joinpath("replay.txt").read_text("utf-8").splitlines()


def base_answers(workshop: Workshop, texts: Sequence[str]) -> list[str]:
    """What the base model answers to them; "" where it cannot take the prompt. Asked once for all runs with that model.

    Raises ModelError, and records nothing, when an answer fails for any other reason: it may succeed another time.
    """
    asked = hashlib.sha256("\n".join([str(_TOKENS), *texts]).encode()).hexdigest()
    folder = workshop.tools.shared or workshop.folder

    def ask() -> dict[str, list[str]]:
        requests = [Request((Message("user", text),), Decoding(_TOKENS)) for text in texts]
        answers = workshop.tools.model.generate(requests)
        failed = [a.error for a in answers if a.error and not about_its_prompt(a.error)]
        if failed:
            raise ModelError(
                f"{workshop.tools.model.name} failed on {len(failed)} of {len(texts)} general prompts ({failed[0]}): "
                "nothing can be replayed. Run the same command again."
            )
        return {"answers": ["" if a.error else a.text.strip() for a in answers]}

    return [str(answer) for answer in once_for_all(folder / f"replay-{asked[:16]}.json", ask)["answers"]]


def cost_of_base_answers() -> Cost:
    """Of the base model's answers to the general prompts; tokens of the prompts are estimated by their characters."""
    texts = replay_prompts()
    read = sum(map(len, texts)) / 4
    return Cost(len(texts), read, _TOKENS * len(texts), sent=read)


def _general_rows(workshop: Workshop) -> list[TrainingRow]:
    """The general prompts with the base model's own answers. Raises TrainingError where it answers none."""
    texts = replay_prompts()
    answered = [(text, answer) for text, answer in zip(texts, base_answers(workshop, texts), strict=True) if answer]
    if not answered:
        raise TrainingError(
            f"{workshop.tools.model.name} answers none of the general prompts: nothing can be replayed."
        )
    rows = [TrainingRow(f"replay {i}", (Message("user", t),), a) for i, (t, a) in enumerate(answered)]
    return without_long(workshop, rows)[0]


def _mixed(own: Sequence[TrainingRow], general: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Rows of both in turn, as many of each; the shorter list is gone through again."""
    pairs = max(len(own), len(general))
    return [row for i in range(pairs) for row in (own[i % len(own)], general[i % len(general)])]

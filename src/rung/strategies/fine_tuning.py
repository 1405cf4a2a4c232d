"""Fine-tuning: a LoRA adapter that learns behaviour; with retrieval, one that learns to read passages.

The learning rate is the best of a small sweep on dev: each rate trains the first part of its own
schedule, from the highest down until a lower one is worse; the one with the lowest dev loss goes on
from where it stands, and nothing is trained twice.
A few times on the way dev is answered and scored by the task's own metric; the last adapter is kept
unless an earlier one is clearly better.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import Diverged
from rung.records import read_json, read_or_make, write_json
from rung.solutions.answer import prepare
from rung.solutions.prompt_rendering import within_budget
from rung.trials.workshop import Materials, attempt
from rung.strategies.retrieving import gold_passage, spec
from rung.types import Decoding, Document, Example, Message, Request, RetrieverSpec, Solution

if TYPE_CHECKING:
    from rung.models.local import LocalModel
    from rung.training.lora import Row

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
MAX_EPOCHS = 4
_WANTED_STEPS = 120  # small data are gone through more often: behaviour rarely settles in fewer steps
_LOOKS = 3  # at dev, evenly over the schedule
_SAMPLED_ROWS = 16  # of train, whose loss says how much is left to learn
_LEARNT = 0.02  # mean loss per answer token below which they are known by heart
_PROBE_SHARE = 0.06  # of the schedule, for each learning rate of the sweep
_TRAINED_PASSAGES = 3
_LEAST_PILOT_STEPS = 12
_REPLAY_SHARE = 0.1  # of the steps of the training that it mends
_REPLAY_RATE = 0.5  # of its learning rate
_REPLAY_TOKENS = 64  # of the base model's own answer


@dataclass(frozen=True)
class _Course:
    """How a training goes. looks: how often `judged` is answered on the way. start: an adapter folder to go on from."""

    steps: int
    looks: int
    judged: tuple[Example, ...]
    start: Path | None = None


@dataclass(frozen=True)
class _Look:
    """An adapter on the way, and the score of each example that it was judged on."""

    step: int
    adapter: Path
    scores: list[float]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


def lora(materials: Materials) -> Solution:
    """The instruction and an adapter trained on the train examples."""
    plain = replace(materials.solution("lora"), constraint=materials.constraint)
    rows = _rows(materials, plain, materials.train)
    return replace(plain, adapter=str(_fit(materials, plain, rows, _whole_course(materials, rows))))


def rag_lora(materials: Materials) -> Solution:
    """As `lora`, with retrieved passages in every prompt, so that reading them is what is learnt.

    Each training prompt shows what the search returns, wrong passages among them; where the search
    misses the passage that holds the answer, it takes the place of the last one, because an answer
    that stands nowhere teaches to invent. Source: Zhang et al., RAFT (2024), which departs by leaving
    some prompts without it.
    """
    shown = max(materials.shown_passages or 0, _TRAINED_PASSAGES)
    plain = replace(materials.solution("rag_lora"), constraint=materials.constraint, retriever=spec(shown))
    rows = _rows(materials, plain, materials.train, gold=True)
    return replace(plain, adapter=str(_fit(materials, plain, rows, _whole_course(materials, rows))))


def pilot(materials: Materials, count: int) -> Solution:
    """As `lora`, from `count` train examples (a fixed sample) and in proportion fewer steps; judged once.

    Its predictions for `materials.piloted` lie in the folder as predictions.dev.jsonl.
    """
    plain = replace(materials.solution(f"pilot-{count}"), constraint=materials.constraint)
    some = random.Random(materials.task.seed).sample(materials.train, count)
    rows = _rows(materials, plain, some)
    whole = _steps(materials, _rows(materials, plain, materials.train))
    steps = max(_LEAST_PILOT_STEPS, round(whole * count / len(materials.train)))
    # An experiment stays one where everything is built in full: it ships nothing.
    course = _Course(steps, 1, materials.piloted)
    return replace(plain, adapter=str(_fit(replace(materials, exhaustive=False), plain, rows, course)))


def replayed(materials: Materials, tuned: Solution) -> Solution:
    """A fine-tuned solution trained on for a little, with the base model's own answers to general prompts mixed in.

    At a lower learning rate, half of each batch from the task. What the base model could do is shown to it again.
    Source: Rolnick et al., Experience replay for continual learning (2019); Scialom et al. (2022), for language models.
    """
    assert tuned.adapter is not None
    gold = tuned.retriever is not None
    model = materials.model
    texts = replay_prompts()
    answered = [(t, a) for t, a in zip(texts, _own_answers(model, texts), strict=True) if a]
    prompts = [model.encode([Message("user", text)]) for text, _ in answered]
    general = _rendered(materials, [f"replay {i}" for i in range(len(answered))], prompts, [a for _, a in answered])
    own = _rows(materials, tuned, materials.train, gold=gold)
    own = random.Random(materials.task.seed).sample(own, min(len(own), max(8, len(general))))
    mixed = [row for pair in zip(own * (1 + len(general) // max(1, len(own))), general, strict=False) for row in pair]
    plain = replace(tuned, adapter=None)
    course = _Course(max(8, round(_REPLAY_SHARE * _steps(materials, own))), 1, materials.dev, Path(tuned.adapter))
    slower = replace(materials, learning_rate=_REPLAY_RATE * (materials.learning_rate or LEARNING_RATES[0]))
    return replace(plain, adapter=str(_fit(slower, plain, mixed, course)))


def replay_prompts() -> list[str]:
    """General prompts, none of them in the skills suite."""
    return files("rung.strategies").joinpath("replay.txt").read_text("utf-8").splitlines()


def _own_answers(model: LocalModel, texts: Sequence[str]) -> list[str]:
    """What the base model answers to them, "" where it cannot. Kept for all runs with that model."""
    from rung.models.catalogue import cache_folder

    asked = hashlib.sha256("\n".join([str(_REPLAY_TOKENS), *texts]).encode()).hexdigest()
    path = cache_folder() / "replay" / f"{model.answers_as}-{asked[:16]}.json"

    def make() -> dict[str, list[str]]:
        answers = model.generate([Request((Message("user", text),), Decoding(_REPLAY_TOKENS)) for text in texts])
        return {"answers": ["" if a.error else a.text.strip() for a in answers]}

    return [str(answer) for answer in read_or_make(path, make)["answers"]]


def _prompts(
    materials: Materials, solution: Solution, examples: Sequence[Example], *, gold: bool = False
) -> list[list[int]]:
    """Prompt ids, rendered as answering renders them."""
    retriever = materials.retriever
    if gold and retriever is not None:
        assert solution.retriever is not None
        retriever = _WithGold(materials, examples, solution.retriever)
    requests, _ = prepare(solution, materials.model, [e.query for e in examples], retriever=retriever)
    return [materials.model.encode(r.messages) for r in requests]


class _WithGold:
    """The search, with the passage that holds the answer put in for the last hits where the prompt would miss it."""

    def __init__(self, materials: Materials, examples: Sequence[Example], spec: RetrieverSpec) -> None:
        assert materials.retriever is not None
        self._search = materials.retriever
        self._spec = spec
        self._count = materials.model.count_tokens
        self._by_id = {p.id: p for p in materials.passages}
        self._examples = examples

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        rows = self._search.search(queries, max(k, 5))
        for example, row in zip(self._examples, rows, strict=True):
            gold = gold_passage(example, self._by_id, row)
            del row[k:]
            if gold is not None and gold not in within_budget(self._spec, row, self._count):
                row[:] = [p for p in row if p != gold][: k - 1]
                while row and gold not in within_budget(self._spec, [*row, gold], self._count):
                    row.pop()
                row.append(gold)
        return rows


def _rows(materials: Materials, solution: Solution, examples: Sequence[Example], *, gold: bool = False) -> list[Row]:
    prompts = _prompts(materials, solution, examples, gold=gold)
    return _rendered(materials, [e.row or e.id for e in examples], prompts, [e.output for e in examples])


def _rendered(
    materials: Materials, names: Sequence[str], prompts: Sequence[list[int]], answers: Sequence[str]
) -> list[Row]:
    from rung.training.lora import render_rows

    return render_rows(materials.model, names, prompts, answers, max_length=materials.model.context_length)


def _whole_course(materials: Materials, rows: Sequence[Row]) -> _Course:
    from rung.training.lora import LoraOptions, steps_per_epoch

    steps = _steps(materials, rows)
    epochs = round(steps / steps_per_epoch(len(rows), LoraOptions.batch_size))
    return _Course(steps, min(_LOOKS, max(1, epochs)), materials.dev)


def _fit(materials: Materials, solution: Solution, rows: list[Row], course: _Course) -> Path:
    """Trains and returns the folder of the adapter to go on with. Every stage is kept, so a killed run goes on.

    Of several learning rates, one is chosen by the dev loss of a short probe; where the materials say
    exhaustive, each is trained to its end.
    """
    from rung.training.lora import LoraOptions, steps_per_epoch

    chosen = materials.folder / "adapter"
    if (chosen / "adapter_config.json").is_file():
        return chosen
    work = materials.folder / "training"
    if materials.exhaustive and course.start is None:
        rates = list(LEARNING_RATES)
    elif materials.learning_rate is not None:
        rates = [materials.learning_rate]
    else:
        rates = [_sweep(materials, solution, rows, course, work)]
    best: tuple[float, Path, dict[str, Any]] | None = None
    reached: dict[str, float] = {}
    for rate in rates:
        found = _climb(materials, solution, rows, course, rate, work)
        if found is None:
            continue
        reached[f"{rate:g}"] = found[0]
        if best is None or found[0] > best[0]:
            best = found
    if best is None:
        raise Diverged(f"{work}: training diverged at every learning rate of {', '.join(f'{r:g}' for r in rates)}.")
    _, adapter, history = best
    per_epoch = steps_per_epoch(len(rows), LoraOptions.batch_size)
    for look in history["epochs"]:
        look["epoch"] = round(look.pop("step") / per_epoch, 2)
    history["kept"] = round(history["kept"] / per_epoch, 2)
    if len(rates) > 1:
        history["rates"] = reached
    write_json(work / "history.json", history)
    scratch = materials.folder / "adapter.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(adapter, scratch)
    # That adapter has answered dev already: those are the solution's own predictions.
    shutil.copy(_trial(materials, adapter), materials.folder / "predictions.dev.jsonl")
    scratch.replace(chosen)
    return chosen


def _trial(materials: Materials, adapter: Path) -> Path:
    return materials.folder / "trials" / f"{adapter.parent.name}-{adapter.name}.jsonl"


def _train(
    materials: Materials, rows: Sequence[Row], course: _Course, rate: float, until: int, work: Path, what: str
) -> Path:
    from rung.training.lora import LoraOptions, train

    options = LoraOptions(rate, steps=course.steps, seed=materials.task.seed)

    def on_step(progress: Any) -> None:
        materials.tell(f"{what}, loss {progress.loss:.2f}", progress.step / course.steps)

    return train(
        materials.model, rows, options, work / f"lr-{rate:g}", until=until, start=course.start, on_step=on_step
    )


def _sweep(materials: Materials, solution: Solution, rows: Sequence[Row], course: _Course, work: Path) -> float:
    """The learning rate whose first steps leave the lowest loss on the screen; from the highest down while it falls."""
    from rung.training.lora import mean_loss

    screen = _rows(materials, solution, materials.screen)
    sweep = read_json(work / "sweep.json") or {"dev_loss": {}}
    until = min(course.steps, max(4, round(_PROBE_SHARE * course.steps)))
    losses: dict[str, float | None] = sweep["dev_loss"]
    best = math.inf
    for candidate in sorted(LEARNING_RATES, reverse=True):
        if f"{candidate:g}" not in losses:
            try:
                adapter = _train(materials, rows, course, candidate, until, work, f"trying learning rate {candidate:g}")
                losses[f"{candidate:g}"] = mean_loss(materials.model, screen, adapter)
                materials.model.forget_adapter(str(adapter))
            except Diverged:
                losses[f"{candidate:g}"] = None
            write_json(work / "sweep.json", sweep)
        loss = losses[f"{candidate:g}"]
        if loss is not None and loss > best:
            break
        best = best if loss is None else loss
    whole = [(loss, float(name)) for name, loss in losses.items() if loss is not None]
    if not whole:
        raise Diverged(f"{work}: training diverged at every learning rate of {', '.join(losses)}.")
    rate = min(whole)[1]
    write_json(work / "sweep.json", {**sweep, "chosen": rate})
    return rate


def _climb(
    materials: Materials, solution: Solution, rows: Sequence[Row], course: _Course, rate: float, work: Path
) -> tuple[float, Path, dict[str, Any]] | None:
    """One learning rate to its end: (best score, its adapter, history by steps); None where it diverged at once."""
    from rung.training.lora import mean_loss

    looks: list[_Look] = []
    for number in range(1, course.looks + 1):
        step = round(number * course.steps / course.looks)
        try:
            adapter = _train(materials, rows, course, rate, step, work, f"training {solution.name}")
        except Diverged:
            if not materials.exhaustive:
                raise
            break
        trial = replace(solution, adapter=str(adapter))
        predictions = attempt(materials, trial, course.judged, _trial(materials, adapter))
        looks.append(_Look(step, adapter, [p.score or 0.0 for p in predictions]))
        # Rows known by heart have nothing left to teach: the first look that is no better is the last.
        no_better = any(look.mean >= looks[-1].mean for look in looks[:-1])
        settled = (
            no_better
            and not materials.exhaustive
            and number < course.looks
            and mean_loss(materials.model, rows[:_SAMPLED_ROWS], adapter) < _LEARNT
        )
        materials.model.forget_adapter(str(adapter))
        if settled or looks[-1].mean >= 1.0:
            break
    if not looks:
        return None
    chosen = _kept(looks)
    history = {
        "learning_rate": rate,
        "steps": course.steps,
        "epochs": [{"step": look.step, "dev": look.mean} for look in looks],
        "kept": chosen.step,
    }
    return chosen.mean, chosen.adapter, history


def _kept(looks: Sequence[_Look]) -> _Look:
    """The last, where the schedule has come to rest, unless the best is ahead by more than one standard error.

    Of several looks at some hundred examples the best is often the luckiest.
    Source: Hastie et al., The Elements of Statistical Learning (2009), 7.10, the one-standard-error rule.
    """
    last = looks[-1]
    best = max(looks, key=lambda look: look.mean)
    gaps = [a - b for a, b in zip(best.scores, last.scores, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return best if best.mean - last.mean > error else last


def _steps(materials: Materials, rows: Sequence[Row]) -> int:
    """As many steps as are wanted and the compute for training allows, but at least one epoch.

    The shared beginning is counted once a batch.
    """
    from rung.engine.prefix_tree import common_beginning
    from rung.training.lora import LoraOptions, steps_per_epoch

    shared = common_beginning([list(row.prompt) for row in rows])
    own = sum(len(row.prompt) - shared + len(row.target) for row in rows)
    per_epoch = steps_per_epoch(len(rows), LoraOptions.batch_size)
    wanted = max(MAX_EPOCHS * per_epoch, _WANTED_STEPS)
    affordable = int(materials.compute_tokens / (own / per_epoch + shared))
    return max(per_epoch, min(wanted, affordable))

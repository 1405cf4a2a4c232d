"""Fine-tuning: a LoRA adapter that learns behaviour; with retrieval, one that learns to read passages.

The learning rate is the best of a small sweep on dev: each rate trains the first part of its own
schedule, the one with the lowest dev loss goes on from where it stands, and nothing is trained twice.
A few times on the way dev is answered and scored by the task's own metric; the best adapter is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import Diverged
from rung.records import read_json, write_json
from rung.solutions.answer import prepare
from rung.strategies.materials import Materials, attempt, mean_score
from rung.strategies.retrieving import gold_passage, spec
from rung.types import Document, Example, Solution

if TYPE_CHECKING:
    from rung.training.lora import Row

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
MAX_EPOCHS = 5
_WANTED_STEPS = 120  # small data are gone through more often: behaviour rarely settles in fewer steps
_LOOKS = 5  # at dev, evenly over the schedule
_PATIENCE = 2  # looks without a better dev score before it stops
_PROBE_SHARE = 0.06  # of the schedule, for each learning rate of the sweep
_TRAINED_PASSAGES = 3


def lora(materials: Materials) -> Solution:
    """The instruction and an adapter trained on the train examples."""
    plain = replace(materials.solution("lora"), constraint=materials.constraint)
    return replace(plain, adapter=str(_fit(materials, plain, _prompts(materials, plain, materials.train))))


def rag_lora(materials: Materials) -> Solution:
    """As `lora`, with retrieved passages in every prompt, so that reading them is what is learnt.

    Each training prompt shows what the search returns, wrong passages among them; where the search
    misses the passage that holds the answer, it takes the place of the last one, because an answer
    that stands nowhere teaches to invent. Source: Zhang et al., RAFT (2024), which departs by leaving
    some prompts without it.
    """
    shown = max(materials.shown_passages or 0, _TRAINED_PASSAGES)
    plain = replace(materials.solution("rag_lora"), constraint=materials.constraint, retriever=spec(shown))
    return replace(plain, adapter=str(_fit(materials, plain, _prompts(materials, plain, materials.train, gold=True))))


def _prompts(
    materials: Materials, solution: Solution, examples: Sequence[Example], *, gold: bool = False
) -> list[list[int]]:
    """Prompt ids, rendered as answering renders them."""
    retriever = materials.retriever
    if gold and retriever is not None:
        retriever = _WithGold(materials, examples)
    requests, _ = prepare(solution, materials.model, [e.query for e in examples], retriever=retriever)
    return [materials.model.encode(r.messages) for r in requests]


class _WithGold:
    """The search, with the passage that holds the answer put in for the last hit where it was missed."""

    def __init__(self, materials: Materials, examples: Sequence[Example]) -> None:
        assert materials.retriever is not None
        self._search = materials.retriever
        self._by_id = {p.id: p for p in materials.passages}
        self._examples = examples

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        rows = self._search.search(queries, max(k, 5))
        for example, row in zip(self._examples, rows, strict=True):
            gold = gold_passage(example, self._by_id, row)
            del row[k:]
            if gold is not None and gold not in row:
                row[k - 1 :] = [gold]
        return rows


def _fit(materials: Materials, solution: Solution, prompts: list[list[int]]) -> Path:
    """Trains and returns the folder of the best adapter on dev. Every stage is kept, so a killed run goes on."""
    from rung.training.lora import LoraOptions, mean_loss, render_rows, steps_per_epoch, train

    chosen = materials.folder / "adapter"
    if (chosen / "adapter_config.json").is_file():
        return chosen
    model = materials.model
    work = materials.folder / "training"
    limit = model.context_length
    rows = render_rows(
        model, [e.row or e.id for e in materials.train], prompts, [e.output for e in materials.train], max_length=limit
    )
    per_epoch = steps_per_epoch(len(rows), LoraOptions.batch_size)
    base = LoraOptions(0.0, steps=_steps(materials, rows), seed=materials.task.seed)

    def run(rate: float, until: int, what: str) -> Path:
        def on_step(progress: Any) -> None:
            materials.tell(f"{what}, loss {progress.loss:.2f}", progress.step / base.steps)

        return train(
            model, rows, replace(base, learning_rate=rate), work / f"lr-{rate:g}", until=until, on_step=on_step
        )

    rate = materials.learning_rate
    if rate is None:
        dev_rows = render_rows(
            model,
            [e.row or e.id for e in materials.screen],
            _prompts(materials, solution, materials.screen),
            [e.output for e in materials.screen],
            max_length=limit,
        )
        sweep = read_json(work / "sweep.json") or {"dev_loss": {}}
        until = max(4, round(_PROBE_SHARE * base.steps))
        losses: dict[str, float | None] = sweep["dev_loss"]
        for candidate in LEARNING_RATES:
            if f"{candidate:g}" in losses:
                continue
            try:
                adapter = run(candidate, until, f"trying learning rate {candidate:g}")
                losses[f"{candidate:g}"] = mean_loss(model, dev_rows, adapter)
                model.forget_adapter(str(adapter))
            except Diverged:
                losses[f"{candidate:g}"] = None
            write_json(work / "sweep.json", sweep)
        whole = [(loss, float(name)) for name, loss in losses.items() if loss is not None]
        if not whole:
            raise Diverged(f"{work}: training diverged at every learning rate of {', '.join(losses)}.")
        rate = min(whole)[1]
        write_json(work / "sweep.json", {**sweep, "chosen": rate})

    best: tuple[float, int, Path] | None = None  # score, look, adapter
    history: dict[str, Any] = {"learning_rate": rate, "steps": base.steps, "epochs": []}
    looks = min(_LOOKS, max(1, round(base.steps / per_epoch)))
    for look in range(1, looks + 1):
        step = round(look * base.steps / looks)
        epoch = round(step / per_epoch, 2)
        adapter = run(rate, step, f"training {solution.name}")
        trial = replace(solution, name=f"step-{step}", adapter=str(adapter))
        score = mean_score(
            attempt(materials, trial, materials.dev, materials.folder / "trials" / f"{trial.name}.jsonl")
        )
        model.forget_adapter(str(adapter))
        history["epochs"].append({"epoch": epoch, "dev": score})
        if best is None or score > best[0]:
            best = (score, look, adapter)
            history["kept"] = epoch
        if look - best[1] >= _PATIENCE or score >= 1.0:
            break
    assert best is not None
    write_json(work / "history.json", history)
    scratch = materials.folder / "adapter.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(best[2], scratch)
    # The best adapter has answered dev already: those are the solution's own predictions.
    shutil.copy(materials.folder / "trials" / f"{best[2].name}.jsonl", materials.folder / "predictions.dev.jsonl")
    scratch.replace(chosen)
    return chosen


def _steps(materials: Materials, rows: Sequence[Row]) -> int:
    """As many steps as are wanted and the compute for training allows, but at least one epoch.

    The shared beginning is counted once a batch.
    """
    from rung.models.tree import common_beginning
    from rung.training.lora import LoraOptions, steps_per_epoch

    shared = common_beginning([list(row.prompt) for row in rows])
    own = sum(len(row.prompt) - shared + len(row.target) for row in rows)
    per_epoch = steps_per_epoch(len(rows), LoraOptions.batch_size)
    wanted = max(MAX_EPOCHS * per_epoch, _WANTED_STEPS)
    affordable = int(materials.compute_tokens / (own / per_epoch + shared))
    return max(per_epoch, min(wanted, affordable))

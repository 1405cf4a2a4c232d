"""Pairs of answers, of which one is preferred, learnt from on top of the best fine-tuned solution.

Defaults are published ones, and dev decides whether they helped: beta 0.1 of Rafailov et al., Direct preference
optimization (2023); the chosen answers' own loss beside it with weight 1, of Pang et al., Iterative reasoning
preference optimization (2024). Published rates of adapters, 5e-6 to 5e-5, go with hundreds of steps; in the tens of a
run they teach little (`bench/preferences.py`), so a tenth of the usual rate of an adapter is taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.resume import is_done, once, record_of
from rung.solutions.answer import requests_for
from rung.strategies.course import (
    COURSE,
    Course,
    Lengths,
    affordable_steps,
    epoch_of,
    lengths_of,
    start_over,
    tokens_at,
)
from rung.strategies.fine_tuning import tuned_on
from rung.strategies.fit import HISTORY, fit
from rung.strategies.learning_rate import OF_ADAPTERS
from rung.strategies.prompting import answering
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import without_long
from rung.trials.workshop import Workshop, cut_of, sample_of
from rung.types import DPO, Preference, PreferenceRow, Solution, TrainingOptions, TrainingRow

HOW = DPO(beta=0.1, sft=1.0)
RATE = OF_ADAPTERS.middle / 10
"""Learning rate of an adapter; all weights take a tenth of it."""

EPOCHS = 2
LEAST_WANTED = 40
"""Steps that are wanted at least: few pairs are gone through more often."""

_LOOKS = 2  # interim looks at most
_SIZED_ON = 64  # pairs
_FIRST = "first"  # folder of the training on chosen answers


def dpo(workshop: Workshop) -> Solution:
    """The best fine-tuned solution, trained on with the user's pairs.

    Where none stands in this run, an adapter is first trained on the chosen answers, with half of the tokens that a
    training may take. Raises TrainingError where the model does not learn from pairs, or too many are too long.
    """
    first = workshop.best_tuned or _on_chosen(workshop)
    assert first.adapter is not None
    plain, adapter = replace(first, name="dpo", adapter=None), workshop.folder / "adapter"
    if is_done(adapter):
        return replace(plain, adapter=str(adapter))
    rows, left_out = _rows(workshop, plain, workshop.inputs.preferences)
    full = bool(record_of(Path(first.adapter).parent / "training" / HISTORY).get("all_weights"))
    course = _course(workshop, first, rows, full=full)
    visited = sample_of(rows, course.steps * TrainingOptions.batch_size, workshop.inputs.task.seed)
    rate = RATE / 10 if full else RATE
    slower = replace(workshop, learning_rate=rate, learning_rate_from="the usual one for pairs of answers")
    return replace(plain, adapter=str(fit(slower, plain, visited, course, left_out)))


def _on_chosen(workshop: Workshop) -> Solution:
    """An adapter that learnt the chosen answers, as `lora` learns those of train."""
    examples = tuple(p.query.answered(p.chosen, row=p.row) for p in workshop.inputs.preferences)
    limits = replace(
        workshop.limits,
        training_tokens=workshop.limits.training_tokens // 2,
        planned_tokens=workshop.limits.planned // 2,
        exhaustive=False,
    )
    folder = workshop.folder / _FIRST
    inside = replace(
        workshop, folder=folder, limits=limits, inputs=replace(workshop.inputs, train=examples), best_tuned=None
    )
    plain = replace(workshop.solution("dpo"), constraint=workshop.inputs.constraint)
    found = tuned_on(inside, plain, ())
    workshop.note_cut("training on the chosen answers", cut_of(folder))
    for probes in (folder / "training").glob("lr-*"):  # no longer needed, and as large as the weights
        shutil.rmtree(probes, ignore_errors=True)
    return found


def _rows(
    workshop: Workshop, solution: Solution, pairs: Sequence[Preference]
) -> tuple[list[PreferenceRow], dict[str, Any]]:
    """One row a pair, with the prompt that answering shows, without those that are too long; and a record of these."""
    requests, _ = requests_for(solution, workshop.tools.model, [pair.query for pair in pairs])
    rows = [
        PreferenceRow(pair.row or pair.query.id, request.messages, pair.chosen, pair.rejected)
        for pair, request in zip(pairs, requests, strict=True)
    ]
    count = workshop.tools.model.count_tokens
    longer = [TrainingRow(row.name, row.messages, max(row.chosen, row.rejected, key=count)) for row in rows]
    fitting, left_out = without_long(workshop, longer)
    kept = set(fitting)
    return [row for row, own in zip(rows, longer, strict=True) if own in kept], left_out


def _course(workshop: Workshop, first: Solution, rows: Sequence[PreferenceRow], *, full: bool) -> Course:
    """The course of a training on pairs, recorded. One from another first solution is begun anew."""
    limits = workshop.limits

    def size() -> dict[str, Any]:
        lengths = _lengths(workshop, rows[:_SIZED_ON])
        steps = _steps(len(rows), lengths, tokens_at(limits.training_tokens, full=full))
        return {
            "from": first.name,
            "steps": steps,
            "wanted": _steps(len(rows), lengths, tokens_at(limits.planned, full=full)),
            "interim_looks": _looks(steps, len(rows)),
            "examples": min(len(rows), steps * TrainingOptions.batch_size),
            "epoch": epoch_of(len(rows)),
        }

    path = workshop.folder / "training" / COURSE
    if record_of(path).get("from", first.name) != first.name:
        start_over(workshop, size())
    sized = {name: value for name, value in once(path, size).items() if name != "from"}
    return Course(judged=workshop.inputs.dev, start=Path(str(first.adapter)), full=full, how=HOW, **sized)


def _steps(pairs: int, lengths: Lengths, training_tokens: float) -> int:
    return min(max(EPOCHS * epoch_of(pairs), LEAST_WANTED), affordable_steps(lengths, training_tokens))


def _looks(steps: int, pairs: int) -> int:
    return min(_LOOKS, max(1, round(steps / epoch_of(pairs))))


def _lengths(workshop: Workshop, rows: Sequence[PreferenceRow]) -> Lengths:
    """Mean tokens of pairs: a prompt, which is computed once, and both answers."""
    chosen = lengths_of(workshop, [TrainingRow(row.name, row.messages, row.chosen) for row in rows])
    rejected = sum(workshop.tools.model.count_tokens(row.rejected) + 1 for row in rows) / len(rows)
    return Lengths(chosen.shared, chosen.own + rejected)


def cost_of_dpo(texts: Texts) -> Cost:
    """Of a training on the pairs, of their reference, and of dev at each interim look.

    Pairs are taken to be as long as the examples. A training on the chosen answers, where no fine-tuned solution stands
    in the run, is not in it.
    """
    pairs = max(1, texts.preferences)
    lengths = Lengths(texts.instruction, texts.own + 2 * texts.answer)
    steps = _steps(pairs, lengths, texts.training_tokens)
    visited = min(pairs, steps * TrainingOptions.batch_size)
    plain = replace(texts, forms=0.0, thought=0)
    answers = answering(plain, _looks(steps, pairs) * texts.dev, texts.own)
    return answers + Cost(read=visited * lengths.own, trained=steps * lengths.step)

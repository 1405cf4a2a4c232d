"""Shorter prompts: after a training, the instruction and the demos are cut down to what the adapter has not learnt.

Each length is scored on dev, with the adapter as it is. Where the input alone is too little for it, the adapter is
trained on for a few steps with such prompts, and scored again. The shortest prompt within the margin is taken.
Source: Snell et al., Learning by distilling context (2022), which trains the prompt away; here most often nothing is
trained, because the adapter has seen the instruction at every step and the answer follows from the input.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rung.data.constraint import form_in_words
from rung.errors import BudgetSpent, NoGain, TrainingError
from rung.evaluation.statistics import MARGIN, compare, score, units_of
from rung.records import write_json, write_lines
from rung.resume import recorded
from rung.solutions.answer import requests_for
from rung.solutions.refusing import with_refusal
from rung.strategies.course import Lengths, onward_steps, steps_of
from rung.strategies.prompting import answering
from rung.strategies.reading import abstain_of
from rung.strategies.registry import SHORTENED, Cost, Texts
from rung.strategies.replay import REPAIR, Onward, trained_on
from rung.trials.trial import attempt, read_predictions
from rung.trials.workshop import Workshop
from rung.types import Comparison, Example, Prediction, Score, Solution

SHORTENING = "shortening.json"
"""In the folder of the shortened solution: every length with its tokens and its score on dev, and which one is taken.

{"from": name of the long form, "lengths": [as `Scored`, the longest first], "taken": place in that list, or null where
no shorter prompt is within the margin, "not_trained": why a training on was given up, or null}
"""

LEAST_SHARE = 0.1
"""Share of a request's tokens that must go: less is not worth a candidate."""

SHORT_ALREADY = "the instruction is short beside the inputs"
"""Why nothing is shortened where `worth_shortening` says so."""

ONWARD = Onward(steps=0.5, rate=1.0, general=False)
"""How the adapter is trained on with the input alone. A tenth of the steps, or half of the rate, brings less back, and
general prompts among them take more away (LOG.md)."""

AS_IT_IS, ALONE = "as it is", "the input alone"

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?![a-z])|(?<=[\u3002\uff01\uff1f])\s*|\n")
_MEASURED_ON = 8  # dev inputs, for what could go
_LIKELY_DEV = 2  # lengths that answer all of dev, as planned
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scored:
    """A length of the prompt on dev. trained: whether the adapter was trained on with prompts of that length.

    tokens_in: of a request, a mean, as the model counts them. set: "screen" where only a part of dev was answered,
    because the rest would hardly have come within the margin. versus: its score minus that of the prompt as it is, on
    the same examples; None for the latter.
    """

    length: str
    trained: bool
    tokens_in: float
    set: str
    score: Score
    versus: Comparison | None


def shortened(workshop: Workshop, tuned: Solution) -> Solution:
    """The tuned solution with the shortest prompt that is within MARGIN of its own on dev.

    tuned: fine-tuned, with its answers to dev and its training's record beside its adapter. Conversation turns, what a
    row asks for and passages stay in every length. The answers to dev are kept as predictions.dev.jsonl, the lengths as
    SHORTENING. Raises NoGain where no prompt that saves LEAST_SHARE of the tokens is within the margin.
    """
    variants = lengths(workshop, tuned)
    record = recorded(workshop.folder / SHORTENING)
    if record is None:
        record = _measured(workshop, tuned, variants)
        write_json(workshop.folder / SHORTENING, record)
    if record["taken"] is None:
        for left in ("adapter", "training"):
            shutil.rmtree(workshop.folder / left, ignore_errors=True)
        raise NoGain(f"no shorter prompt than that of {tuned.name} is within {MARGIN:g} of it on dev")
    row = record["lengths"][record["taken"]]
    name, solution = SHORTENED.format(tuned.name), variants[row["length"]]
    if row["trained"]:
        return replace(solution, name=name, adapter=str(workshop.folder / "adapter"))
    _keep_answers(workshop, solution, list(variants).index(row["length"]))
    return replace(solution, name=name)


def lengths(workshop: Workshop, tuned: Solution) -> dict[str, Solution]:
    """The tuned solution under each length of its prompt, by the length in words; the longest first, no two alike.

    Where a prompt with passages says what to answer if none of them holds the answer, each length does: dev may hold no
    question that shows its use.
    """
    inputs = workshop.inputs
    form = form_in_words(inputs.task, inputs.train)
    abstain = abstain_of(inputs.task) if tuned.retriever is not None else None
    if with_refusal(tuned.instruction, abstain) != tuned.instruction:
        abstain = None
    plain = replace(tuned, demos=(), demo_selection=None)
    whole = tuned.instruction.rstrip()
    without_form = whole.removesuffix(form).rstrip() if form else whole
    found = {
        AS_IT_IS: tuned,
        "without demos": plain,
        "without the form of the answer": replace(plain, instruction=without_form),
        "the first sentence of the instruction": replace(plain, instruction=first_sentence(without_form)),
        ALONE: replace(plain, instruction=""),
    }
    kept: dict[str, Solution] = {}
    for length, solution in found.items():
        solution = replace(solution, instruction=with_refusal(solution.instruction, abstain))
        if all((solution.instruction, solution.demos) != (o.instruction.rstrip(), o.demos) for o in kept.values()):
            kept[length] = replace(solution, name=f"{tuned.name} ({length})") if kept else solution
    return kept


def first_sentence(text: str) -> str:
    """Up to where the first sentence or line ends."""
    return next((part for part in _SENTENCE.split(text.strip()) if part.strip()), "").rstrip()


def removable(workshop: Workshop, tuned: Solution) -> tuple[float, float]:
    """(tokens of a prompt that could go, tokens of the whole), means over a few dev inputs, without a template's."""
    model, some = workshop.tools.model, [e.query for e in workshop.inputs.dev[:_MEASURED_ON]]
    index = workshop.retriever_of(tuned)

    def tokens(solution: Solution) -> float:
        requests, _ = requests_for(solution, model, some, retriever=index)
        return sum(model.count_tokens(m.content) for r in requests for m in r.messages) / len(some)

    whole = tokens(tuned)
    return whole - tokens(list(lengths(workshop, tuned).values())[-1]), whole


def saves(tokens: float, whole: float) -> bool:
    """Whether a request of so many tokens is clearly shorter than the whole one."""
    return tokens <= (1 - LEAST_SHARE) * whole


def cost_of_shortening(texts: Texts, repair: Cost) -> Cost:
    """Of one solution. repair: of training it on as replay does, dev once included."""
    plain = replace(texts, forms=0.0, thought=0)
    steps = steps_of(texts.train, Lengths(texts.instruction, texts.own + texts.answer), texts.training_tokens)
    times = onward_steps(steps, ONWARD.steps) / onward_steps(steps, REPAIR.steps)  # few steps have a least number
    training = replace(repair, trained=repair.trained * times)
    return answering(plain, _LIKELY_DEV * texts.dev, texts.own) + training


def worth_shortening(texts: Texts) -> bool:
    """Whether instructions of that length leave enough to cut."""
    return texts.instruction >= LEAST_SHARE * (texts.instruction + texts.own)


# ---- scoring ----------------------------------------------------------------------------------


def _measured(workshop: Workshop, tuned: Solution, variants: Mapping[str, Solution]) -> dict[str, Any]:
    """What SHORTENING holds."""
    dev, screen = workshop.inputs.dev, workshop.inputs.screen
    assert tuned.adapter is not None, "only what was fine-tuned has learnt its prompt"
    known = read_predictions(Path(tuned.adapter).parent / "predictions.dev.jsonl")
    whole = attempt(workshop, tuned, dev, _answers(workshop, 0, "dev"), known=known)
    own = {p.id: p for p in whole}
    rows = [_scored(workshop, AS_IT_IS, whole, None)]
    for place, (length, solution) in enumerate(variants.items()):
        if place == 0:
            continue
        found = attempt(workshop, solution, screen, _answers(workshop, place, "screen"))
        row = _scored(workshop, length, found, own)
        if row.versus is not None and row.versus.high >= -MARGIN:  # not shown to be further below than the margin
            found = attempt(workshop, solution, dev, _answers(workshop, place, "dev"), known=found)
            row = _scored(workshop, length, found, own)
        rows.append(row)
    not_trained = None
    if rows[-1].length == ALONE and saves(rows[-1].tokens_in, rows[0].tokens_in) and not _holds(rows[-1], rows[0], dev):
        try:
            solution = trained_on(workshop, tuned, variants[ALONE], ONWARD)
            found = attempt(workshop, solution, dev, workshop.folder / "predictions.dev.jsonl")
            rows.append(_scored(workshop, ALONE, found, own, trained=True))
        except (BudgetSpent, TrainingError) as given_up:
            if not any(_holds(row, rows[0], dev) for row in rows):
                raise
            not_trained = str(given_up)
    holding = [place for place, row in enumerate(rows) if _holds(row, rows[0], dev)]
    taken = min(holding, key=lambda place: rows[place].tokens_in, default=None)
    return {
        "from": tuned.name,
        "lengths": [asdict(row) for row in rows],
        "taken": taken,
        "not_trained": not_trained,
    }


def _holds(row: Scored, whole: Scored, dev: Sequence[Example]) -> bool:
    """Whether all of dev was answered with it, clearly fewer tokens were read, and it is within the margin."""
    if row.versus is None or row.score.n < len(dev):
        return False
    return saves(row.tokens_in, whole.tokens_in) and row.versus.difference >= -MARGIN - _ROUNDING


def _scored(
    workshop: Workshop,
    length: str,
    predictions: Sequence[Prediction],
    own: Mapping[str, Prediction] | None,
    *,
    trained: bool = False,
) -> Scored:
    """own: answers under the prompt as it is, by id; None: these are they."""
    ids, seed = [p.id for p in predictions], workshop.inputs.task.seed
    groups = units_of(ids, workshop.inputs.groups)
    values = [p.score or 0.0 for p in predictions]
    versus = None
    if own is not None:
        theirs = [own[i].score or 0.0 for i in ids]
        versus = compare(AS_IT_IS, length, theirs, values, "dev", groups=groups, seed=seed)
    tokens = sum(p.tokens_in for p in predictions) / len(predictions)
    which = "dev" if len(ids) == len(workshop.inputs.dev) else "screen"
    return Scored(length, trained, round(tokens, 2), which, score(values, groups=groups, seed=seed), versus)


def _keep_answers(workshop: Workshop, solution: Solution, place: int) -> None:
    """The answers of a length that needed no training, in the place of what a training that is not taken left."""
    found = attempt(
        workshop,
        solution,
        workshop.inputs.dev,
        _answers(workshop, place, "dev"),
        known=read_predictions(_answers(workshop, place, "screen")),
    )
    write_lines(workshop.folder / "predictions.dev.jsonl", (asdict(p) for p in found))
    shutil.rmtree(workshop.folder / "training", ignore_errors=True)
    workshop.note_cut("training", None)


def _answers(workshop: Workshop, place: int, part: str) -> Path:
    return workshop.folder / "trials" / f"length-{place}-{part}.jsonl"

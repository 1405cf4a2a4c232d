"""Distillation: an adapter learns answers that are none of the user's.

Those of a stronger model to inputs without answers; or those of the run's own retrieval solution, which reads passages
that the adapter is then to do without. Dev and test stay the user's own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.data.lengths import of_usual_length
from rung.errors import NoGain, TrainingError
from rung.records import read_lines, write_lines
from rung.resume import once, record_of
from rung.strategies.course import Lengths, lengths_of_texts, room_beside
from rung.strategies.fine_tuning import cost_of_tuning_on, tuned_on
from rung.strategies.prompting import answering
from rung.strategies.registry import Cost, Texts
from rung.strategies.retrieving import PASSAGES
from rung.strategies.training_rows import training_rows
from rung.teaching.answering import VOTES, Voted, answered
from rung.text import normal_form
from rung.trials.workshop import Workshop
from rung.types import Example, Query, Solution

MOST_ASKED = 2_000
"""Inputs at most that a teacher answers for one training."""

MOST_READ = 500
"""Inputs at most that the run's own retrieval solution answers for one training: its prompts are long."""

TAUGHT, COUNTS = "taught.jsonl", "taught.json"
"""Files in a solution's folder: the rows that were learnt beside train; how many were asked for, how many were kept."""

_SIZED_ON = 32  # train examples by which the length of a training row is taken
_DEMOS = 4  # in the best prompt, about


def distilled_lora(workshop: Workshop) -> Solution:
    """As `lora`, on train and on what the teacher answers to the unlabelled inputs.

    Raises NoGain where no answer can be used, or the training is too short to see more than train.
    """
    plain = replace(workshop.solution("distilled_lora"), constraint=workshop.inputs.constraint)
    asked = _to_answer(workshop, plain, MOST_ASKED)
    return tuned_on(workshop, plain, _learnt(workshop, asked, VOTES, "distilled", None))


def rag_distilled(workshop: Workshop) -> Solution:
    """As `lora`, on train and on what the best retrieval solution answers to the unlabelled inputs with its passages.

    The adapter answers without passages. Questions and answers teach no fact that is not among them, so it is kept only
    where questions that it has not seen, those of dev, are answered as well as with passages. Raises as
    `distilled_lora`, and TrainingError where no retrieval solution stands in this run.
    """
    reading = workshop.best_rag
    if reading is None:
        raise TrainingError("no retrieval solution stands in this run whose answers could be learnt. Name rag, too.")
    plain = replace(workshop.solution("rag_distilled"), constraint=workshop.inputs.constraint)
    asked = _to_answer(workshop, plain, MOST_READ)
    return tuned_on(workshop, plain, _learnt(workshop, asked, 1, "read from passages", reading))


def taught_counts(folder: Path) -> dict[str, Any]:
    """How many inputs were asked and kept for the solution in that folder; empty where none were."""
    return record_of(folder / COUNTS)


def _to_answer(workshop: Workshop, plain: Solution, most: int) -> tuple[Query, ...]:
    """The unlabelled inputs to ask for: a fixed sample, no more than the training has time to visit beside train.

    Inputs of train are left out: they have an answer. Raises NoGain where none is left.
    """
    inputs, seed = workshop.inputs, workshop.inputs.task.seed
    known = {normal_form(example.query.text) for example in inputs.train}
    new = [query for query in inputs.unlabelled if normal_form(query.text) not in known]
    if not new:
        raise NoGain("every unlabelled input is one of train, which has its answer already")
    room = room_beside(len(inputs.train), _lengths(workshop, plain), workshop.limits.planned)
    if not room:
        raise NoGain("in the time that is planned for it the training sees no more rows than those of train")
    return _some(new, min(most, room), seed)


def _some(queries: Sequence[Query], most: int, seed: int) -> tuple[Query, ...]:
    """A fixed sample, in order. A smaller one is part of a larger one, so that what was answered for it is used."""
    drawn = random.Random(seed).sample(range(len(queries)), len(queries))[:most]
    return tuple(queries[i] for i in sorted(drawn))


def _lengths(workshop: Workshop, plain: Solution) -> Lengths:
    """Mean tokens of training rows, as the plan takes them, so that no more is asked for than was planned."""
    count = workshop.tools.model.count_tokens
    rows = training_rows(workshop, plain, of_usual_length(workshop.inputs.train)[:_SIZED_ON])
    instruction = count(plain.instruction)
    prompt = sum(count(m.content) for row in rows for m in row.messages) / len(rows)
    answer = sum(count(row.answer) + 1 for row in rows) / len(rows)
    return lengths_of_texts(instruction, max(8.0, prompt - instruction), answer)


def _learnt(
    workshop: Workshop, asked: Sequence[Query], votes: int, kind: str, reading: Solution | None
) -> list[Example]:
    """What was answered to these inputs, as examples; asked for once, then read back. Raises NoGain where none is.

    reading: the solution of this model that answers; None: the teacher does, with the best prompt.
    """
    folder = workshop.folder

    def ask() -> dict[str, Any]:
        model = workshop.tools.model if reading is not None else None
        found = answered(workshop, asked, folder / "answers.jsonl", votes=votes, solution=reading, model=model)
        kept = [one for one in found if one.answer is not None]
        teacher = model or workshop.tools.teacher or workshop.tools.model
        solution = reading or workshop.best_prompt
        write_lines(folder / TAUGHT, (_row(one, kind, teacher.name, solution) for one in kept))
        left_out = Counter(one.why for one in found if one.answer is None)
        usd = round(sum(one.usd for one in found), 6)
        by = f"{reading.name} with its passages" if reading is not None else f"the teacher ({teacher.name})"
        counts = {"asked": len(found), "kept": len(kept), "left_out": dict(left_out)}
        return {"by": by, **counts, "votes": votes, "usd": usd}

    counts = once(folder / COUNTS, ask)
    if not counts["kept"]:
        why = ", ".join(f"{n} {what}" for what, n in counts["left_out"].items())
        raise NoGain(f"none of {counts['asked']} answers to unlabelled inputs can be learnt from ({why})")
    by_id = {query.id: query for query in workshop.inputs.unlabelled}
    return [by_id[row["id"]].answered(str(row["output"]), row=row["id"]) for row in read_lines(folder / TAUGHT)]


def _row(voted: Voted, kind: str, teacher: str, solution: Solution | None) -> dict[str, Any]:
    """A row with where it comes from."""
    origin = {
        "kind": kind,
        "teacher": teacher,
        "prompt": solution.name if solution is not None else "",
        "from": [],
        "votes": dict(voted.votes),
        "share": round(voted.share, 4),
        "asked": voted.asked,
        "usd": round(voted.usd, 8),
    }
    query = voted.query
    return {"id": query.id, "input": query.input, "output": voted.answer, "origin": origin, "review": None}


# ---- what they cost -------------------------------------------------------------------------


def cost_of_distilled_lora(texts: Texts) -> Cost:
    """As of lora, with the rows that are taught."""
    return cost_of_tuning_on(texts, _asked_of(texts, MOST_ASKED))


def rows_of_distilled_lora(texts: Texts) -> int:
    """Rows that the teacher answers, if all of its answers can be used."""
    return _asked_of(texts, MOST_ASKED)


def taught_of_distilled_lora(texts: Texts) -> Cost:
    """Each unlabelled input that the training can visit, answered by the teacher as often as there are votes."""
    demos = _DEMOS * (texts.own + texts.answer)
    return answering(texts, VOTES * _asked_of(texts, MOST_ASKED), texts.own, demos=demos)


def cost_of_rag_distilled(texts: Texts) -> Cost:
    """Inputs answered once with passages by the model itself, and a training as of lora on them beside train."""
    asked = _asked_of(texts, MOST_READ)
    return answering(texts, asked, texts.own + max(PASSAGES) * texts.passage) + cost_of_tuning_on(texts, asked)


def _asked_of(texts: Texts, most: int) -> int:
    """How many of the unlabelled inputs are answered, as `_to_answer` has it."""
    lengths = lengths_of_texts(texts.instruction, texts.own, texts.answer)
    return min(texts.unlabelled, most, room_beside(texts.train, lengths, texts.training_tokens))

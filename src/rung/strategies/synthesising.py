"""Training on examples that a teacher wrote, beside those of train: for tasks to which more labels would bring more.

The rows are those of `synthetic:` where the task names some, else a teacher writes about as many as train has. They lie
in the solution's folder with their origin, and train; dev and test stay the user's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rung.data.constraint import form_in_words
from rung.errors import NoGain
from rung.records import read_lines, write_lines
from rung.resume import once
from rung.solutions.prompt_rendering import PASSAGE_TOKENS
from rung.strategies.course import Lengths, lengths_of, lengths_of_texts, room_beside
from rung.strategies.fine_tuning import cost_of_tuning_on, tuned_on
from rung.strategies.prompting import answering
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import training_rows
from rung.teaching.answering import VOTES
from rung.teaching.synthesis import Counts, Kind, SynthesisOptions, counts_of, synthesise
from rung.teaching.synthesis.aims import wrong_answers
from rung.teaching.synthesis.counts import DEMOS, WRITTEN
from rung.teaching.synthesis.knowing import SHOWN_PASSAGES
from rung.teaching.synthesis.rows import example_of
from rung.text import normal_form
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Solution

MOST_WRITTEN = 200
"""Rows at most that are written inside a run. `rung synth` writes more."""

ROWS, COUNTS = "synthetic.jsonl", "synthetic.json"
"""Files in the solution's folder: the rows with their origin, and how many were asked for, kept and left out."""

_KINDS: tuple[Kind, ...] = ("new", "paraphrase")  # questions about documents teach nothing without passages
_LEAST = 8  # rows: fewer change nothing
_SIZED_ON = 64  # train examples by which the length of a training row is taken
_SHOWN = 5  # inputs in a request for new ones


def synth_lora(workshop: Workshop) -> Solution:
    """As `lora`, on train and on synthetic rows.

    Raises NoGain where the teacher is below the bar on known rows, too few of its rows can be used, or the training is
    too short to see more than train.
    """
    plain = replace(workshop.solution("synth_lora"), constraint=workshop.inputs.constraint)
    more = list(_given(workshop)) if workshop.inputs.synthetic else _written(workshop, plain)
    if len(more) < _LEAST:
        raise NoGain(f"{len(more)} synthetic rows can be used, which are too few to change anything")
    return tuned_on(workshop, plain, more)


def _given(workshop: Workshop) -> tuple[Example, ...]:
    """The rows that the task names, without those that say that documents hold no answer: no prompt shows documents."""
    inputs = workshop.inputs
    abstain = inputs.task.abstain
    if abstain is None or any(normal_form(e.output) == normal_form(abstain) for e in inputs.train):
        return inputs.synthetic
    return tuple(e for e in inputs.synthetic if normal_form(e.output) != normal_form(abstain))


def _written(workshop: Workshop, plain: Solution) -> list[Example]:
    """Rows that the teacher writes now, as many as train has within bounds; written once, then read back."""
    folder = workshop.folder

    def write() -> Mapping[str, Any]:
        counts = _counts(workshop, plain)
        inputs = workshop.inputs
        found = synthesise(workshop, counts, SynthesisOptions(wrong=_wrong(workshop), seed=inputs.task.seed))
        write_lines(folder / ROWS, (row.record for row in found.rows))
        return {
            "wanted": counts.rows,
            "kept": len(found.rows),
            "rejected": dict(found.rejected),
            "teacher_score": found.known.score,
            "known_rows": found.known.rows,
            "calls": found.calls,
            "usd": round(found.usd, 6),
        }

    once(folder / COUNTS, write)
    return [example_of(row) for row in read_lines(folder / ROWS)]


def _counts(workshop: Workshop, plain: Solution) -> Counts:
    """Raises NoGain where the training has no time for more rows than those of train."""
    inputs = workshop.inputs
    some = sample_of(inputs.train, _SIZED_ON, inputs.task.seed)
    lengths = lengths_of(workshop, training_rows(workshop, plain, some))
    rows = rows_wanted(len(inputs.train), lengths, workshop.limits.planned)
    if rows < _LEAST:
        raise NoGain("in the time that is planned for it the training sees no more rows than those of train")
    return counts_of(rows, _KINDS, len(inputs.train), forms=form_in_words(inputs.task, inputs.train) is not None)


def rows_wanted(train: int, lengths: Lengths, training_tokens: float) -> int:
    """About as many as train has: at most MOST_WRITTEN, and no more than the training can visit beside train."""
    return min(train, MOST_WRITTEN, room_beside(train, lengths, training_tokens))


def _wrong(workshop: Workshop) -> dict[str, int]:
    """Label -> how often the best prompt gets it wrong on dev. Of other answers nothing is told: they are content."""
    if not workshop.inputs.task.labels:
        return {}
    right = {example.id: example.output for example in workshop.inputs.dev}
    return wrong_answers([(right[p.id], p.score or 0.0) for p in workshop.prompt_answers if p.id in right])


# ---- what it costs --------------------------------------------------------------------------


def cost_of_synth_lora(texts: Texts) -> Cost:
    """As of lora, with the synthetic rows beside train."""
    return cost_of_tuning_on(texts, rows_of_synth_lora(texts))


def rows_of_synth_lora(texts: Texts) -> int:
    """Rows beside train: those that the task brings, else those that the teacher writes if all of them can be used."""
    return texts.synthetic or _rows_of(texts)


def taught_of_synth_lora(texts: Texts) -> Cost:
    """Answers to known rows, new inputs, and their answers; nothing where the task brings its synthetic rows."""
    rows = _rows_of(texts)
    if texts.synthetic or not rows:
        return Cost()
    counts = counts_of(rows, _KINDS, texts.train, forms=bool(texts.forms))
    own = texts.own + min(PASSAGE_TOKENS, SHOWN_PASSAGES * texts.passage)
    demos = answering(texts, VOTES * (counts.known + counts.voted), own + DEMOS * (texts.own + texts.answer))
    plain = answering(texts, VOTES * counts.known * (counts.settings - 1), own)
    inputs = sum(counts.writings(kind) * WRITTEN[kind] for kind in counts.wanted)
    read = counts.written * (texts.instruction + (_SHOWN + 2) * texts.own)
    return demos + plain + Cost(counts.written, read, inputs * texts.own + counts.written * texts.thought, sent=read)


def _rows_of(texts: Texts) -> int:
    """How many rows are written, by the mean lengths of the task."""
    lengths = lengths_of_texts(texts.instruction, texts.own, texts.answer)
    rows = rows_wanted(texts.train, lengths, texts.training_tokens)
    return rows if rows >= _LEAST else 0

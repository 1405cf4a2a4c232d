"""How well a teacher does the task itself, on train rows that it answers as if they were new, and with which prompt.

Its examples can be no better than its answers, so a teacher below the bar writes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rung.data.constraint import form_in_words
from rung.errors import NoGain
from rung.solutions.demos import demo
from rung.solutions.refusing import with_refusal
from rung.teaching.answering import Voted, answered, scorer_of
from rung.teaching.synthesis.counts import DEMOS, Counts
from rung.trials.workshop import Workshop, sample_of
from rung.types import Answer, DemoSelection, Example, Solution

SHOWN_PASSAGES = 5
_MOST_DEMOS = 5_000


@dataclass(frozen=True)
class TeacherScore:
    """What the teacher did on known rows. asking: the prompt that did best. score: mean score of its voted answers.

    rows: that it answered. kept: those with a majority, which the score is of. usd: of all that was asked.
    """

    asking: Solution
    score: float
    rows: int
    kept: int
    usd: float

    @property
    def said(self) -> str:
        """The measurement, as a sentence part."""
        return f"{self.score:.2f} on {self.kept} of {self.rows} known train rows on which its votes agree"


def settings(workshop: Workshop, held: Sequence[Example]) -> list[Solution]:
    """The prompts that are compared: the instruction; with the form of the answer; with the nearest demos, too.

    held: rows that no demo shows, nor what nearly repeats them. With a corpus, all of them show passages.
    """
    inputs = workshop.inputs
    shown = workshop.passages_spec(SHOWN_PASSAGES) if inputs.passages else None
    abstain = inputs.task.abstain if inputs.passages else None
    instruction = with_refusal(inputs.task.instruction.rstrip(), abstain)
    plain = replace(workshop.solution("plain"), instruction=instruction, retriever=shown)
    form = form_in_words(inputs.task, inputs.train)
    formed = replace(plain, name="form", instruction=f"{instruction}\n\n{form}") if form else plain
    groups = {inputs.groups.get(e.id, e.id) for e in held}
    others = [e for e in inputs.train if inputs.groups.get(e.id, e.id) not in groups]
    pool = tuple(demo(e) for e in sample_of(others, _MOST_DEMOS, inputs.task.seed))
    found = [plain, *([formed] if form else [])]
    if pool:
        k = min(DEMOS, len(pool))
        found.append(replace(formed, name="demos", demos=pool, demo_selection=DemoSelection("nearest", k)))
    return found


def held_rows(workshop: Workshop, counts: Counts) -> tuple[Example, ...]:
    """The train rows that are answered as if they were new."""
    return sample_of(workshop.inputs.train, counts.known, workshop.inputs.task.seed)


def measured(workshop: Workshop, counts: Counts, journal: Path, bar: float) -> TeacherScore:
    """What the teacher scores on known rows, by the task's own metric, with the best of its prompts.

    Only the rows count on which a majority of its samples agrees, since the others are left out of what it writes, too.
    Raises NoGain with the number where it is below the bar.
    """
    held = held_rows(workshop, counts)
    found: list[TeacherScore] = []
    usd = 0.0
    for asking in settings(workshop, held):
        voted = answered(workshop, [e.query for e in held], journal, solution=asking, what="asking about known rows")
        usd += sum(v.usd for v in voted)
        found.append(_scored(workshop, asking, held, voted))
    best = max(found, key=lambda known: known.score * known.kept)  # of equals, the shortest prompt
    best = replace(best, usd=usd)
    teacher = workshop.tools.teacher
    if best.score < bar or not best.kept:
        name = teacher.name if teacher is not None else "the teacher"
        raise NoGain(f"{name} scores {best.said}, and {bar:.2f} is the least for a teacher whose examples can help")
    return best


def _scored(workshop: Workshop, asking: Solution, held: Sequence[Example], voted: Sequence[Voted]) -> TeacherScore:
    pairs = [(e, v.answer) for e, v in zip(held, voted, strict=True) if v.answer is not None]
    outcomes = scorer_of(workshop).score([Answer(e.query, text, e.references) for e, text in pairs])
    score = sum(o.score for o in outcomes) / len(pairs) if pairs else 0.0
    return TeacherScore(asking, score, len(held), len(pairs), 0.0)

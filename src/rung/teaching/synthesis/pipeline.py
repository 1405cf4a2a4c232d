"""Synthesis: a teacher writes new inputs, answers each several times, and what survives the filters becomes rows.

1. The teacher answers some known train rows. Below the bar it writes nothing (`knowing`).
2. It writes more inputs than are wanted, where examples are thin or answers often wrong (`aims`, `drafts`).
3. Inputs that repeat something, or could teach nothing, are left out (`filters`). The fence keeps dev and test sealed.
4. It answers the others several times; a row needs a majority, and agreement with what it was written for.

Every request is known beforehand in number and kept in a journal: after a kill, the same call asks for what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.data.vectors import forget
from rung.errors import RunError
from rung.evaluation.scorer import Scorer
from rung.records import write_lines
from rung.retrieval.gold import GoldRetriever
from rung.retrieval.library import SearchedBy
from rung.teaching.answering import VOTES, Voted, answered, scorer_of
from rung.teaching.synthesis.counts import BAR, Counts, Kind
from rung.teaching.synthesis.drafts import DraftInput, written
from rung.teaching.synthesis.filters import SEALED, usable
from rung.teaching.synthesis.knowing import TeacherScore, measured
from rung.teaching.synthesis.rows import SyntheticRow
from rung.text import normal_form
from rung.trials.workshop import Workshop
from rung.types import Solution, Task

JOURNAL, REJECTED = "teacher.jsonl", "rejected.jsonl"
"""Files in the folder of a synthesis: the teacher's answers, and {id, kind, input, why} of what was left out."""

OTHERWISE = "answered otherwise than it was written for"
OTHER_MEANING = "answered otherwise than the row that it paraphrases"
NOT_IN_PASSAGE, IN_PASSAGES = "not answered by its passage", "answered by the passages after all"

_SAME = 0.8  # score of one answer against the other from which a graded metric calls them the same; labels: 1


@dataclass(frozen=True)
class SynthesisOptions:
    """What may be chosen of a synthesis.

    wrong: right answer -> how often it was wrong on dev; of dev, nothing else is known here. bar: the least score of a
    teacher on known rows. seed: another one writes other rows.
    """

    wrong: Mapping[str, int] = field(default_factory=dict)
    bar: float = BAR
    seed: int = 0


@dataclass(frozen=True)
class Synthesis:
    """What came of it.

    rows: accepted, at most as many as were wanted. known: the teacher on known rows. rejected: reason -> inputs left
    out. spare: accepted ones beyond the number wanted. calls: requests that it took, those of earlier commands
    included. usd: dollars for them, as far as known. why_left_out: kind -> reason -> inputs of it that were left out.
    """

    rows: tuple[SyntheticRow, ...]
    known: TeacherScore
    rejected: Mapping[str, int]
    spare: int
    calls: int
    usd: float
    why_left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, int]:
        return dict(Counter(row.kind for row in self.rows))


def synthesise(workshop: Workshop, counts: Counts, options: SynthesisOptions = SynthesisOptions()) -> Synthesis:
    """Rows that the workshop's teacher writes and answers. Train alone is shown to it.

    The workshop's folder takes JOURNAL and REJECTED, and its inputs have a fence. counts.calls requests are made at
    most. Raises NoGain where the teacher is below the bar on known rows, BudgetSpent and ModelError with all that was
    answered kept.
    """
    inputs, teacher = workshop.inputs, workshop.tools.teacher or workshop.tools.model
    if inputs.fence is None:
        raise RunError("nothing is written without a fence around dev and the test.")
    journal = workshop.folder / JOURNAL
    known = measured(workshop, counts, journal, options.bar)
    drafts = written(inputs, teacher, counts, options.wrong, journal, workshop.tools.tell, options.seed)
    forget()  # the vectors by which inputs were grouped
    fit, rejected, left_out = usable(drafts, inputs.train, inputs.fence)
    chosen = _chosen(fit, counts)
    voted = _voted(workshop, chosen, known.asking, journal)
    scorer = scorer_of(workshop)
    accepted: list[SyntheticRow] = []
    kinds: list[Kind] = []
    for draft, votes in zip(chosen, voted, strict=True):
        answer, why = _answer(draft, votes, scorer, inputs.task)
        if answer is None:
            rejected[why] += 1
            left_out.append((draft, why))
        else:
            accepted.append(_row(draft, votes, answer, teacher.name))
            kinds.append(draft.kind)
    _write_rejected(workshop.folder / REJECTED, left_out)
    rows = [accepted[place] for place in _in_proportion(kinds, counts.wanted, counts.rows)]
    calls = counts.measured + counts.written + VOTES * len(chosen)
    usd = known.usd + sum(draft.usd for draft in drafts) + sum(v.usd for v in voted)
    spare = len(accepted) - len(rows)
    return Synthesis(tuple(rows), known, dict(rejected), spare, calls, usd, _by_kind(left_out))


def _by_kind(left_out: Sequence[tuple[DraftInput, str]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for draft, why in left_out:
        found.setdefault(draft.kind, Counter())[why] += 1
    return found


def _chosen(drafts: Sequence[DraftInput], counts: Counts) -> list[DraftInput]:
    """As many as are to be answered, kinds in proportion."""
    share = counts.voted / max(1, counts.rows)
    wanted = {kind: share * rows for kind, rows in counts.wanted.items()}
    return [drafts[place] for place in _in_proportion([d.kind for d in drafts], wanted, counts.voted)]


def _in_proportion(kinds: Sequence[Kind], wanted: Mapping[Kind, float], most: int) -> list[int]:
    """At most so many places, ascending: each kind up to its number; where one has too few, more of the others."""
    taken: Counter[Kind] = Counter()
    first: list[int] = []
    rest: list[int] = []
    for place, kind in enumerate(kinds):
        taken[kind] += 1
        (first if taken[kind] <= wanted.get(kind, 0) else rest).append(place)
    return sorted((first + rest)[:most])


def _voted(workshop: Workshop, drafts: Sequence[DraftInput], asking: Solution, journal: Path) -> list[Voted]:
    """The voted answers, in order. A question from a passage is answered with that passage in view."""
    gold = {draft.query.id: (draft.passage,) for draft in drafts if draft.passage is not None}
    seen = replace(workshop.inputs, library=SearchedBy(workshop.inputs.passages, GoldRetriever(gold)))
    found: dict[str, Voted] = {}
    for shop, some in (
        (workshop, [d.query for d in drafts if d.query.id not in gold]),
        (replace(workshop, inputs=seen), [d.query for d in drafts if d.query.id in gold]),
    ):
        if some:
            what = f"answering {len(some)} new inputs, {VOTES} times each"
            found |= {v.query.id: v for v in answered(shop, some, journal, solution=asking, what=what)}
    return [found[draft.query.id] for draft in drafts]


def _answer(draft: DraftInput, voted: Voted, scorer: Scorer, task: Task) -> tuple[str | None, str]:
    """(the answer to learn, "") or (None, why the row is left out)."""
    if voted.answer is None:
        return None, voted.why
    least = 1.0 if scorer.metric.right_or_wrong or task.labels else _SAME

    def same(wanted: Sequence[str]) -> bool:
        answer = str(voted.answer)
        score = scorer.one(answer, wanted, draft.query)
        return score >= least or normal_form(answer) in map(normal_form, wanted)

    kind: Kind = draft.kind
    if kind == "paraphrase" and draft.like is not None:
        return (draft.answer, "") if same(draft.like.references) else (None, OTHER_MEANING)
    if kind == "unanswerable":
        return (draft.answer, "") if draft.answer is not None and same([draft.answer]) else (None, IN_PASSAGES)
    if kind == "document" and task.abstain is not None and same([task.abstain]):
        return None, NOT_IN_PASSAGE
    if draft.answer is not None:
        return (draft.answer, "") if same([draft.answer]) else (None, OTHERWISE)
    return voted.answer, ""


def _row(draft: DraftInput, voted: Voted, answer: str, teacher: str) -> SyntheticRow:
    query = draft.query
    references = draft.like.references if draft.like is not None else (answer,)
    passages = draft.like.gold_ids if draft.like is not None else (draft.passage.id,) if draft.passage else ()
    example = replace(
        query.answered(answer, row=f"synthetic {query.id}"),
        references=references,
        gold_ids=passages,
        gold_found=draft.like is not None and draft.like.gold_found,
    )
    origin = {
        "kind": draft.kind,
        "teacher": teacher,
        "prompt": draft.prompt,
        "from": list(draft.sources),
        "votes": dict(Counter(voted.votes).most_common()),
        "asked": voted.asked,
        "usd": round(draft.usd + voted.usd, 8),
    }
    return SyntheticRow(example, origin)


def _write_rejected(path: Path, left_out: Sequence[tuple[DraftInput, str]]) -> None:
    """What lies near a sealed row is not written down: it would say what stands there."""
    shown = [(draft, why) for draft, why in left_out if why != SEALED]
    write_lines(path, ({"id": d.query.id, "kind": d.kind, "input": d.query.input, "why": why} for d, why in shown))

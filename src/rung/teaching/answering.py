"""Answers of a teacher to inputs that have none: asked several times, held to the task's form, and put to the vote.

Two samples vote for one answer as far as the task's own metric calls them the same. Where it says right or wrong, that
is the majority; where it grades, the answer that agrees most with all of them.
Source: Wang et al., Self-consistency improves chain of thought reasoning (2023); for graded metrics Bertsch et al.,
It's MBR all the way down (2023), of which a majority vote is a special case.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.constraints import NAMES, fault_of
from rung.data.checks.phrases import refuses
from rung.data.constraint import form_in_words
from rung.data.shapes.labels import Labels, as_answer, several
from rung.errors import came
from rung.evaluation.abstention import says_nothing
from rung.evaluation.metrics import metric_for
from rung.evaluation.scorer import Scorer
from rung.models.constraining import enforced
from rung.models.journal import Journal
from rung.models.metering import charged_usd
from rung.solutions.answer import requests_for, without_marks
from rung.trials.workshop import Workshop
from rung.types import Answer, Constraint, Generation, Model, Query, Request, Solution

VOTES = 3
"""Samples of each answer: two that agree are a majority. Plans count with it."""

MAJORITY = 0.5
"""An answer is kept where more than this share of the samples agrees with it."""

_TEMPERATURE = 0.7  # of all samples but the first, which is greedy
_FENCED = re.compile(r"```\w*\s*\n(.*?)\n?\s*```", re.DOTALL)


@dataclass(frozen=True)
class Voted:
    """What a teacher answers to one input.

    answer: in the form of the task's answers; None where there is none to learn from, and `why` then says so in a few
    words that are the same for all inputs of that kind. share: of the samples that agree with it, in [0, 1]. votes:
    usable answer -> how many samples gave it. asked: number of samples. usd: what they were charged, as far as known.
    """

    query: Query
    answer: str | None
    share: float
    why: str = ""
    votes: Mapping[str, int] = field(default_factory=dict)
    asked: int = 0
    usd: float = 0.0


def answered(
    workshop: Workshop,
    queries: Sequence[Query],
    path: Path,
    *,
    votes: int = VOTES,
    solution: Solution | None = None,
    model: Model | None = None,
    what: str = "",
) -> list[Voted]:
    """The voted answer to each query, in order.

    path: the journal of the samples, JSON lines; what stands there is not asked again. votes: samples of each answer.
    solution: what asks; None: the best prompt so far, else the bare instruction. model: what answers; None: the
    teacher, or where the task has none the workshop's own model. what: is being done, for who hears of progress.
    Marks of sources are no part of an answer to learn.
    len(queries) x votes requests are made. Raises ModelError, and BudgetSpent with all that was answered on disk.
    """
    teacher = model or workshop.tools.teacher or workshop.tools.model
    asking = solution or workshop.best_prompt or workshop.solution("asking")
    asking = held_to(workshop, teacher, replace(asking, constraint=workshop.inputs.constraint))
    requests, shown = requests_for(asking, teacher, queries, retriever=workshop.retriever_of(asking))
    sampled = [_sample(request, number) for request in requests for number in range(votes)]
    told = what or f"{teacher.name} answers {len(queries)} inputs"
    answers = Journal(teacher, path).generate(sampled, workshop.tools.tell, told)
    form = TaughtForm.of(workshop)
    return [
        _voted(
            form,
            query,
            [replace(s, text=without_marks(asking, s.text, seen).text) for s in answers[n * votes : (n + 1) * votes]],
            teacher,
        )
        for n, (query, seen) in enumerate(zip(queries, shown, strict=True))
    ]


def held_to(workshop: Workshop, model: Model, solution: Solution) -> Solution:
    """The solution as it is; where that model cannot be held to its constraint, the form of the answer in words."""
    if solution.constraint is None or enforced(model, solution.constraint) is not None:
        return solution
    form, said = form_in_words(workshop.inputs.task, workshop.inputs.train), solution.instruction
    told = said if form is None or form in said else f"{said}\n\n{form}"
    return replace(solution, constraint=None, instruction=told)


@dataclass(frozen=True)
class TaughtForm:
    """What an answer of the task must be to be learnt from.

    scorer: says whether two answers are the same. keep_space: the space that an answer begins with is part of it.
    refusals, unknowns: an answer of train refuses, or says that there is none, so that this may be right.
    """

    scorer: Scorer
    constraint: Constraint | None
    labels: Labels | None = None
    multi_label: bool = False
    empty: bool = False
    keep_space: bool = False
    refusals: bool = False
    unknowns: bool = False

    @classmethod
    def of(cls, workshop: Workshop) -> TaughtForm:
        inputs, task = workshop.inputs, workshop.inputs.task
        right = (*(e.output for e in inputs.train), *([task.abstain] if task.abstain else []))
        return cls(
            scorer=scorer_of(workshop),
            constraint=inputs.constraint,
            labels=Labels(task.labels) if task.labels else None,
            multi_label=task.multi_label,
            empty=task.empty_answers,
            keep_space=workshop.decoding.keep_space,
            refusals=any(map(refuses, right)),
            unknowns=any(map(says_nothing, right)),
        )

    def read(self, query: Query, text: str) -> tuple[str, str]:
        """(the answer as train writes it, "") or ("", why it is not one to learn from)."""
        text = self._as_written(text.rstrip() if self.keep_space else text.strip())
        if not text.strip():
            return ("", "") if self.empty else ("", "no answer")
        if self.constraint is not None:
            if fault_of(self.constraint, text, shown=False):
                return "", f"outside the {NAMES[self.constraint.kind]}"
        elif (not self.refusals and refuses(text)) or (not self.unknowns and says_nothing(text)):
            return "", "refused"
        if self.scorer.one(text, [text], query) <= 0.0:
            return "", "unreadable to the metric"
        return text, ""

    def agree(self, query: Query, texts: Sequence[str]) -> list[list[float]]:
        """How far each text is right where another one is the reference: shape (texts, texts), 1 with itself."""
        pairs = [(a, b) for a in texts for b in texts if a != b]
        found = self.scorer.score([Answer(query, a, (b,)) for a, b in pairs])
        scores = {pair: outcome.score for pair, outcome in zip(pairs, found, strict=True)}
        return [[scores.get((a, b), 1.0) for b in texts] for a in texts]

    def _as_written(self, text: str) -> str:
        """The answer without a fence, a label in its declared spelling, JSON with the space that train has."""
        if self.constraint is None:
            return text
        whole = text.strip()
        if (fenced := _FENCED.fullmatch(whole)) is not None:
            whole = fenced[1].strip()
        if self.labels is not None and self.multi_label:
            try:
                return as_answer(several(whole, self.labels, None), self.labels.order)
            except ValueError:
                return whole
        if self.labels is not None:
            return self.labels.match(whole) or whole
        if self.constraint.kind == "json_schema" and isinstance(self.constraint.value, Mapping):
            return _spaced(whole, self.constraint.value.get("x-guidance"))
        return whole


def scorer_of(workshop: Workshop) -> Scorer:
    """The task's own metric. A judge is not asked of a teacher's answers: the metric that counts without it says it."""
    scorer, task = workshop.tools.scorer, workshop.inputs.task
    if not scorer.metric.needs_judge:
        return scorer
    return Scorer(metric_for(task, task.judge.fallback if task.judge is not None else "token_f1"))


def _spaced(text: str, guidance: object) -> str:
    """JSON with the separators that a grammar of the task would write; as it is where it fixes none."""
    if not isinstance(guidance, Mapping) or "item_separator" not in guidance:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    separators = (str(guidance["item_separator"]), str(guidance["key_separator"]))
    return json.dumps(value, separators=separators, ensure_ascii=text.isascii())


def _sample(request: Request, number: int) -> Request:
    """The request as it is asked the number-th time: the first one greedily, each later one with a seed of its own."""
    if number == 0:
        return replace(request, decoding=replace(request.decoding, temperature=0.0))
    seed = request.decoding.seed + number
    return replace(request, decoding=replace(request.decoding, temperature=_TEMPERATURE, seed=seed))


def _voted(form: TaughtForm, query: Query, samples: Sequence[Generation], teacher: Model) -> Voted:
    usable: list[str] = []
    faults: list[str] = []
    for sample in samples:
        text, why = form.read(query, sample.text)
        why = _no_answer(sample) or why
        (faults if why else usable).append(why or text)
    usd = sum(charged_usd(sample, teacher.price) for sample in samples)
    votes = Counter(usable)
    texts = list(votes)  # in the order in which they came
    weights = [
        sum(votes[other] * agrees for other, agrees in zip(texts, row, strict=True)) / len(samples)
        for row in form.agree(query, texts)
    ]
    share = max(weights, default=0.0)
    if share > MAJORITY:
        best = max((i for i, w in enumerate(weights) if w == share), key=lambda i: votes[texts[i]])
        return Voted(query, texts[best], share, "", votes, len(samples), usd)
    why = "no majority" if len(usable) > len(faults) else Counter(faults).most_common(1)[0][0]
    return Voted(query, None, share, why, votes, len(samples), usd)


def _no_answer(sample: Generation) -> str:
    """Why a sample holds no whole answer; empty where it does, be it one that breaks the constraint."""
    if sample.finish == "length":
        return "cut off"
    return "" if came(sample.error) else "no answer"

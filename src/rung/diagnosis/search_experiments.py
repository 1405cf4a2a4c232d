"""The experiments on wrong answers of a solution that retrieves, as one record (search_failures.json).

Where the answers stand costs no call of the model. Of the wrong answers of each cause, some are answered again with the
one change that should mend it, and so are some right ones, which the change may break; and all of them with a placebo.
Every answer is kept in the folder as it comes, so that a run that was killed goes on and ends in the same record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.diagnosis.answer_places import RANKED, Place, places_of
from rung.diagnosis.experiment import right_from
from rung.diagnosis.interventions import Impossible, constrained, nearest_demos
from rung.diagnosis.lenient import Yardstick, reads_right, yardstick
from rung.diagnosis.placebo import PLACEBO, OwnSeeds, placebo
from rung.diagnosis.search_failures import (
    CUT,
    FORM,
    INVENTED,
    MISSED,
    REFUSED,
    UNKNOWN,
    UNUSED,
    Facts,
    Remedy,
    cause_of,
    shares,
)
from rung.errors import came
from rung.evaluation.abstention import refuses_by_reference, says_nothing
from rung.retrieval.gold import MOST_GOLD, GoldRetriever
from rung.solutions.demos import NEAREST_POOL
from rung.solutions.prompt_rendering import passage_text
from rung.solutions.refusing import with_refusal
from rung.trials.trial import Trial, read_predictions, try_all
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Prediction, Retriever, Solution

MOST = 24
"""Wrong answers of each cause that are answered again."""

RIGHT = 12
"""Right answers that are answered again."""

LEAST_WRONG = 5
"""Wrong answers on dev; of fewer, shares say next to nothing, and none is answered again."""

GOLD, MORE, TOLD, DEMOS, CONSTRAINT = "gold", "room", "told", "demos", "constraint"

WHAT = {
    GOLD: "the passages that hold the answer, and no others",
    MORE: "more passages in the prompt",
    TOLD: "an instruction that says what to answer where the passages hold no answer",
    DEMOS: "the nearest examples with their answers",
    CONSTRAINT: "a constraint",
}
"""Experiment -> what is changed, in words."""

EXPERIMENTS = {MISSED: GOLD, CUT: MORE, UNUSED: GOLD, REFUSED: GOLD, INVENTED: TOLD}
"""Cause -> the experiment that should mend it; a wrong form has two. Where the instruction says already what to answer
where passages hold no answer, demos are tried."""


@dataclass(frozen=True)
class SearchCheck:
    """Which answers are wrong and why, and what is answered again. Nothing is answered yet.

    wrong, right: examples of dev by their answers; those whose answer did not come are neither. trials: name of an
    experiment -> what is answered.
    """

    workshop: Workshop
    solution: Solution
    folder: Path
    by: Yardstick
    answers: Mapping[str, Prediction]
    wrong: tuple[Example, ...]
    right: tuple[Example, ...]
    places: Mapping[str, Place]
    facts: Mapping[str, Facts]
    trials: Mapping[str, Trial]

    @cached_property
    def causes(self) -> dict[str, str]:
        """Example id -> the cause of its wrong answer, before what a form experiment says of it."""
        return {i: cause_of(facts) for i, facts in self.facts.items()}

    @property
    def calls(self) -> int:
        """Answers that are not there yet."""
        return sum(len(t.examples) - len(read_predictions(t.path)) for t in self.trials.values())


def set_up_check(
    workshop: Workshop, solution: Solution, predictions: Sequence[Prediction], folder: Path, *, most: int = MOST
) -> SearchCheck:
    """Looks up where the answers stand. solution: one that retrieves, with its answers to dev."""
    inputs, scorer = workshop.inputs, workshop.tools.scorer
    answers = {p.id: p for p in predictions if came(p.error)}
    limit = right_from(scorer.metric)
    asked = [e for e in inputs.dev if e.id in answers]
    wrong = tuple(e for e in asked if (answers[e.id].score or 0.0) < limit)
    good = [e for e in asked if (answers[e.id].score or 0.0) >= limit]
    right = sample_of(good, RIGHT, inputs.task.seed)
    places = places_of(workshop, solution, (*wrong, *right), answers)
    some = sample_of(inputs.train, NEAREST_POOL, inputs.task.seed)
    by = yardstick(scorer, limit, inputs.task.labels, some)
    facts = {e.id: _facts(workshop, e, answers[e.id], places[e.id], by) for e in wrong}
    check = SearchCheck(workshop, solution, folder, by, answers, wrong, right, places, facts, {})
    return replace(check, trials=_trials(check, most)) if len(wrong) >= LEAST_WRONG else check


def _facts(workshop: Workshop, example: Example, answer: Prediction, place: Place, by: Yardstick) -> Facts:
    abstain = workshop.inputs.task.abstain
    closed = bool(by.labels) or any(says_nothing(r) for r in example.references if r != abstain)
    return Facts(
        answerable=not refuses_by_reference(example, abstain),
        refuses=not closed and says_nothing(answer.text, abstain),
        holds=reads_right(answer.text, example, by, passages="\n".join(p.text for p in place.visible)),
        located=not place.unknown,
        held=bool(place.gold),
        found=place.rank is not None or place.cut_apart,
        shown=place.shown,
    )


# ---- what is answered again -----------------------------------------------------------------------


def _trials(check: SearchCheck, most: int) -> dict[str, Trial]:
    """The experiments that can be made, and the placebo. Empty where none can."""
    seed = check.workshop.inputs.task.seed
    of = {
        cause: sample_of([e for e in check.wrong if check.causes[e.id] == cause], most, seed)
        for cause in (*EXPERIMENTS, FORM)
    }
    found: dict[str, Trial] = {}

    def add(name: str, solution: Solution, failed: Sequence[Example], retriever: Retriever | None = None) -> None:
        right = [e for e in check.right if name != GOLD or check.places[e.id].gold]
        named = replace(solution, name=f"{check.solution.name} again ({name})")
        found[name] = Trial(named, (*failed, *right), check.folder / f"{name}.jsonl", retriever=retriever)

    missing = [e for cause in (MISSED, UNUSED, REFUSED) for e in of[cause] if check.places[e.id].gold]
    if missing:
        gold = {i: place.gold[:MOST_GOLD] for i, place in check.places.items()}
        add(GOLD, _with_gold(check, missing), missing, GoldRetriever(gold))
    if of[CUT] and (wider := _with_room(check, of[CUT])) is not None:
        add(MORE, wider, of[CUT])
    told = with_refusal(check.solution.instruction, check.workshop.inputs.task.abstain)
    untold = of[INVENTED] if told == check.solution.instruction else ()  # the instruction says it already
    if of[INVENTED] and not untold:
        add(TOLD, replace(check.solution, instruction=told), of[INVENTED])
    formed = (*of[FORM], *of[UNUSED])
    for name, make, asked in ((CONSTRAINT, constrained, formed), (DEMOS, nearest_demos, (*formed, *untold))):
        made = make(check.solution, check.workshop) if asked else Impossible("nothing needs it")
        if not isinstance(made, Impossible):
            add(name, made, asked)
    if found:
        again_asked = {e.id for trial in found.values() for e in trial.examples}
        in_order = [e for e in check.workshop.inputs.dev if e.id in again_asked]
        model = OwnSeeds(check.workshop.tools.model, check.solution.decoding.seed)
        again = replace(placebo(check.solution), name=f"{check.solution.name} again ({PLACEBO})")
        found[PLACEBO] = Trial(again, in_order, check.folder / f"{PLACEBO}.jsonl", model=model)
    return found


def _with_gold(check: SearchCheck, examples: Sequence[Example]) -> Solution:
    """Shown as the solution shows passages, with as many tokens as they take."""
    spec = check.solution.retriever
    assert spec is not None
    longest = max(_tokens(check, check.places[e.id].gold[:MOST_GOLD]) for e in examples)
    room = max(spec.token_budget, min(longest, check.workshop.limits.prompt_tokens))
    return replace(
        check.solution,
        retriever=replace(spec, kind=GOLD, k=MOST_GOLD, token_budget=room, reranker="", query="input"),
    )


def _with_room(check: SearchCheck, examples: Sequence[Example]) -> Solution | None:
    """The same search, with room for the passages that are found and not shown, as far as prompts may be that long.

    None where that brings no answer into a prompt.
    """
    spec, most = check.solution.retriever, check.workshop.limits.prompt_tokens
    assert spec is not None
    rows = [row for e in examples if (row := check.places[e.id].ranked)]
    needed = [(len(row), tokens) for row in rows if (tokens := _tokens(check, row)) <= most]
    if not needed:
        return None
    k, room = (max(size) for size in zip(*needed, strict=True))
    wider = replace(spec, k=max(k, spec.k), token_budget=max(room, spec.token_budget))
    return replace(check.solution, retriever=wider) if wider != spec else None


def _tokens(check: SearchCheck, passages: Sequence[Any]) -> int:
    return sum(check.workshop.tools.model.count_tokens(passage_text(p)) for p in passages)


# ---- the record -----------------------------------------------------------------------------------


def search_record(check: SearchCheck, *, why: str | None = None) -> dict[str, Any]:
    """What search_failures.json holds. why: what keeps the experiments from being made; they are made where None.

    A wrong answer that a constraint or demos mend, and neither the placebo nor its own passage, has a wrong form.
    """
    answers: dict[str, dict[str, Prediction]] = {}
    if why is None and check.trials:
        done = try_all(check.workshop, list(check.trials.values()))
        answers = {n: {p.id: p for p in one} for n, one in zip(check.trials, done, strict=True)}
    outcomes = {n: {i: (p.score or 0.0) >= check.by.right for i, p in one.items()} for n, one in answers.items()}
    causes, task = _causes(check, outcomes), check.workshop.inputs.task
    rows = shares(
        check.solution.name,
        causes,
        _mended(check, outcomes),
        check.wrong,
        check.right,
        check.workshop.inputs.groups,
        task.seed,
    )
    unknown = Counter(check.places[i].unknown for i, cause in causes.items() if cause == UNKNOWN)
    return {
        "answered": len(check.answers),
        "wrong": len(check.wrong),
        "ranked": RANKED,
        "causes": [asdict(row) for row in rows],
        "unknown": dict(unknown),
        "examples": [
            {
                "id": e.id,
                "cause": causes[e.id],
                "rank": check.places[e.id].rank,
                "gold_passages": [p.id for p in check.places[e.id].gold[:MOST_GOLD]],
                "outcomes": {n: outcome[e.id] for n, outcome in outcomes.items() if e.id in outcome},
            }
            for e in check.wrong
        ],
        "why": why,
    }


def _causes(check: SearchCheck, outcomes: Mapping[str, Mapping[str, bool]]) -> dict[str, str]:
    causes = dict(check.causes)
    for name in (CONSTRAINT, DEMOS):
        for i, right in outcomes.get(name, {}).items():
            alone = any(outcomes.get(other, {}).get(i, False) for other in (PLACEBO, GOLD))
            if right and not alone and causes.get(i) == UNUSED:
                causes[i] = FORM
    return causes


def _mended(check: SearchCheck, outcomes: Mapping[str, Mapping[str, bool]]) -> dict[str, Remedy]:
    """Cause -> its experiment; of the two for a wrong form, the one that mends more.

    What was named a wrong form because one of these mended it, is not counted among what it mends.
    """
    found = {
        cause: Remedy(WHAT[name], outcomes[name], outcomes[PLACEBO])
        for cause, name in EXPERIMENTS.items()
        if name in outcomes
    }
    if INVENTED not in found and DEMOS in outcomes:
        found[INVENTED] = Remedy(WHAT[DEMOS], outcomes[DEMOS], outcomes[PLACEBO])
    kept = {e.id for e in check.right} | {i for i, cause in check.causes.items() if cause == FORM}
    forms = {n: {i: r for i, r in outcomes[n].items() if i in kept} for n in (CONSTRAINT, DEMOS) if n in outcomes}
    if forms:
        wrong = {i for i, cause in check.causes.items() if cause == FORM}
        best = max(forms, key=lambda name: sum(forms[name].get(i, False) for i in wrong))  # of equals, the first
        found[FORM] = Remedy(WHAT[best], forms[best], outcomes[PLACEBO])
    return found

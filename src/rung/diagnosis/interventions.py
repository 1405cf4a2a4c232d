"""Interventions: the base Solution with one field changed, and the cause that a rescue by it is evidence for.

A new one is one function and one call of `register_intervention`, from inside the package or from outside. Knows how a
Solution is changed and what cannot be changed in it; answers nothing and judges nothing.
Source: Pearl, Causality (2009), ch. 3, for changing one thing and holding the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from rung.data.lengths import of_usual_length
from rung.diagnosis.lenient import bare, is_json, stated
from rung.diagnosis.placebo import PLACEBO, SAMPLES
from rung.retrieval.gold import MOST_GOLD, GoldRetriever
from rung.solutions.demos import NEAREST_POOL, demo
from rung.solutions.prompt_rendering import PASSAGE_TOKENS
from rung.trials.choose import affordable
from rung.trials.workshop import Workshop, sample_of
from rung.types import DemoSelection, Example, Retriever, RetrieverSpec, Solution

FORMAT = "format"
"""The cause whose other evidence is a lenient reading; an intervention for it is joined with that."""

LENIENT = "lenient"
INCONSISTENCY = "inconsistency"

DEMOS = 4
THINKING_TOKENS = 96
THINK = (
    "Before you answer, reason step by step. Then write the final answer alone on the last line, "
    'after "Answer:", in the form that was asked for.'
)

_SEARCHED = 20  # ranked passages among which one that contains the answer is looked for
_RESERVED = frozenset({PLACEBO, LENIENT, INCONSISTENCY, *(f"sample-{i}" for i in range(1, SAMPLES + 1))})


@dataclass(frozen=True)
class Impossible:
    """Why an intervention cannot be made on this base. why: a sentence part without a full stop."""

    why: str


@dataclass(frozen=True)
class Intervention:
    """One change, and what it is evidence for.

    name: in files and records. cause: what a rescue by it shows. changes: the Solution field that it changes.
    evidence: completes "fixed by …". make: the changed Solution, or why there is none.

    How it is answered, where that is not as any Solution is:
    concerns: (text of a wrong answer, workshop) -> whether the change can concern it. Other wrong answers are not asked
    again. None: it concerns all.
    retriever: (examples, workshop) -> (what the Solution searches with, the examples it has passages for). Only those
    are asked again. None: the workshop's retriever, and all examples.
    reading: the part of an answer that is scored. None: all of it.
    """

    name: str
    cause: str
    changes: str
    evidence: str
    make: Callable[[Solution, Workshop], Solution | Impossible]
    concerns: Callable[[str, Workshop], bool] | None = None
    retriever: Callable[[Sequence[Example], Workshop], tuple[Retriever, Sequence[Example]]] | None = None
    reading: Callable[[str], str] | None = None


INTERVENTIONS: dict[str, Intervention] = {}
"""Name -> intervention, in the order in which they are answered."""


def register_intervention(intervention: Intervention) -> None:
    """Adds an intervention; one of the same name is replaced. Raises ValueError for a name or field that cannot be."""
    if intervention.name in _RESERVED:
        raise ValueError(f"an intervention cannot be named {intervention.name}: the diagnosis uses that name itself")
    if intervention.changes not in {field.name for field in fields(Solution)}:
        raise ValueError(f"{intervention.name}: a Solution has no field {intervention.changes!r} to change")
    INTERVENTIONS[intervention.name] = intervention


# ---- format ---------------------------------------------------------------------------------


def constrained(base: Solution, workshop: Workshop) -> Solution | Impossible:
    """The answer cannot leave the labels, schema or pattern."""
    if base.constraint is not None:
        return Impossible("the base is constrained already")
    if workshop.inputs.constraint is None:
        return Impossible("the task has no labels, schema or pattern")
    return replace(base, constraint=workshop.inputs.constraint)


def lacks_shape(text: str, workshop: Workshop) -> bool:
    """Whether the text is outside the labels, schema or pattern. A constraint on shape cannot fix an answer within."""
    allowed = workshop.inputs.constraint
    if allowed is None:
        return True
    if isinstance(allowed.value, str):
        return re.fullmatch(allowed.value, text) is None
    if isinstance(allowed.value, tuple):
        return bare(text) not in map(bare, allowed.value)
    return not is_json(text)


# ---- convention -----------------------------------------------------------------------------


def nearest_demos(base: Solution, workshop: Workshop) -> Solution | Impossible:
    """The nearest train examples with their right answers, as demos."""
    selection = base.demo_selection
    if base.demos and selection is not None and selection.kind == "nearest" and selection.k >= DEMOS:
        return Impossible("the base shows its nearest examples already")
    if not workshop.inputs.train:
        return Impossible("there are no train examples")
    train = sample_of(of_usual_length(workshop.inputs.train), NEAREST_POOL, workshop.inputs.task.seed)
    pool = tuple(demo(e) for e in train)
    made = replace(base, demos=pool, demo_selection=DemoSelection("nearest", DEMOS))
    return made if affordable(workshop, made) else Impossible("examples beside every input cost more than the budget")


# ---- knowledge and retrieval ----------------------------------------------------------------


def gold_beside(base: Solution, workshop: Workshop) -> Solution | Impossible:
    """The gold passages beside the input, for a base that retrieves nothing."""
    if base.retriever is not None:
        return Impossible("the base retrieves already")
    return _with_gold(base, workshop, PASSAGE_TOKENS)


def gold_instead(base: Solution, workshop: Workshop) -> Solution | Impossible:
    """The gold passages in the place of the retrieved ones."""
    if base.retriever is None:
        return Impossible("the base retrieves nothing")
    return _with_gold(base, workshop, base.retriever.token_budget)


def _with_gold(base: Solution, workshop: Workshop, token_budget: int) -> Solution | Impossible:
    """Passages are shown as the base shows them: fenced or not."""
    if not workshop.inputs.passages:
        return Impossible("there is no corpus")
    fenced = base.retriever is not None and base.retriever.fenced
    return replace(base, retriever=RetrieverSpec("gold", MOST_GOLD, token_budget, fenced=fenced))


def gold_retriever(examples: Sequence[Example], workshop: Workshop) -> tuple[Retriever, Sequence[Example]]:
    """What brings each example the passages that hold its answer, and the examples for which there are some."""
    task, spec = workshop.inputs.task, workshop.passages_spec(_SEARCHED)
    index = workshop.inputs.library.gold(spec)
    # Labels mark nothing: that a passage contains "yes" says nothing about the answer.
    unmarked = [] if task.labels else [e for e in examples if not e.gold_ids]
    search = workshop.inputs.library.search(spec) if unmarked else None
    ranked = search.search([e.query for e in unmarked], _SEARCHED) if search is not None else []
    found = {e.id: row for e, row in zip(unmarked, ranked, strict=True)}
    gold = {e.id: index.passages(e, found.get(e.id, ())) for e in examples}
    return GoldRetriever(gold), [e for e in examples if gold[e.id]]


# ---- reasoning ------------------------------------------------------------------------------


def thinking(base: Solution, workshop: Workshop) -> Solution | Impossible:
    """Think first, with room for it. Source: Kojima et al., Large language models are zero-shot reasoners (2022).

    What forbids thinking goes with it: the constraint, and demos that show answers without any thought.
    """
    room = replace(base.decoding, max_new_tokens=max(THINKING_TOKENS, base.decoding.max_new_tokens))
    instruction = f"{base.instruction.rstrip()}\n\n{THINK}"
    plain = replace(base, constraint=None, demos=(), demo_selection=None)
    return replace(plain, instruction=instruction, decoding=room)


for _intervention in (
    Intervention("constraint", FORMAT, "constraint", "a constraint", constrained, concerns=lacks_shape),
    Intervention("convention", "convention", "demos", "the nearest gold demos", nearest_demos),
    Intervention("knowledge", "knowledge", "retriever", "the gold passages", gold_beside, retriever=gold_retriever),
    Intervention(
        "retrieval",
        "retrieval",
        "retriever",
        "the gold passages in the place of the retrieved ones",
        gold_instead,
        retriever=gold_retriever,
    ),
    Intervention("reasoning", "reasoning", "instruction", "thinking first", thinking, reading=stated),
):
    register_intervention(_intervention)

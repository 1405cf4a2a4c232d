"""Retrieval: facts put in front of the model when they are asked for."""

from __future__ import annotations

from dataclasses import replace

from rung.data.lengths import of_usual_length
from rung.retrieval import INDEXES
from rung.retrieval.gold import SEARCHED
from rung.solutions.demos import covering, demo
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, with_passages
from rung.strategies.prompting import answering, choose_form, forms, in_form_of
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import gold_index
from rung.trials.choose import choose
from rung.trials.workshop import Workshop, sample_of
from rung.types import Demo, DemoSelection, RetrieverSpec, Solution

PASSAGES = (1, 3, 5)
"""Numbers of passages that are tried."""

_FIRST = 3  # passages while all else is chosen
_DEMOS = 4
_SPREAD = 8  # one in so many of the shortest candidates becomes a demo, so that they differ
_CANDIDATES = 2_000  # train examples at most whose passage is looked for


def rag(workshop: Workshop) -> Solution:
    """The instruction and the passages that an index finds for the input.

    Chosen on dev, one after the other: the kind of index, where several are registered; whether the instruction says
    the form of the answer; no demos, plain ones, or ones that show their own passage; how many passages; and the form
    again.
    """
    plain = replace(workshop.solution("rag"), constraint=workshop.inputs.constraint)
    kinds = [replace(plain, name=f"{kind}-passages-{_FIRST}", retriever=spec(_FIRST, kind)) for kind in INDEXES]
    best = choose(workshop, kinds) if len(kinds) > 1 else kinds[0]
    best = choose(workshop, _with_demos(workshop, choose_form(workshop, best)))
    counts = [
        replace(best, name=best.name.replace(f"passages-{_FIRST}", f"passages-{k}", 1), retriever=_at_most(k, best))
        for k in PASSAGES
    ]
    return replace(choose_form(workshop, choose(workshop, counts)), name=plain.name)


def spec(k: int, kind: str | None = None) -> RetrieverSpec:
    """At most k passages of an index of that kind; None: the kind that is registered first."""
    return RetrieverSpec(kind or next(iter(INDEXES)), k, PASSAGE_TOKENS)


def demos_with_passages(workshop: Workshop, solution: Solution, count: int) -> tuple[Demo, ...]:
    """At most `count` worked examples whose input shows the passage that holds the answer; short ones.

    solution: whose index finds passages for examples that mark none. Where answers are labels, only examples that mark
    a passage have one.
    """
    inputs = workshop.inputs
    retriever, index = workshop.retriever_of(solution), gold_index(workshop, solution.retriever)
    assert retriever is not None
    some = sample_of(inputs.train, _CANDIDATES, inputs.task.seed)
    ranked = retriever.search([e.query for e in some], SEARCHED)
    pairs = [(e, gold) for e, row in zip(some, ranked, strict=True) if (gold := index.passage(e, row)) is not None]
    short = sorted(pairs, key=lambda pair: len(pair[1].text))[: count * _SPREAD : _SPREAD]
    return tuple(replace(demo(e), input=with_passages(demo(e).input, [gold], solution.retriever)) for e, gold in short)


def _with_demos(workshop: Workshop, best: Solution) -> list[Solution]:
    """The solution without demos, with plain ones, and with ones that show their own passage where there are such."""
    fixed = DemoSelection("fixed", _DEMOS)
    found = {
        "demos": covering(of_usual_length(workshop.inputs.train), workshop.inputs.task.seed, _DEMOS),
        "shown": demos_with_passages(workshop, best, _DEMOS),
    }
    return [
        best,
        *(
            in_form_of(best, replace(best, demos=demos, demo_selection=fixed), behind=f"-{name}")
            for name, demos in found.items()
            if demos
        ),
    ]


def _at_most(k: int, solution: Solution) -> RetrieverSpec:
    assert solution.retriever is not None
    return replace(solution.retriever, k=k)


def cost_of_rag(texts: Texts) -> Cost:
    """Demos on a third of the screen, two of them on all of it; numbers of passages likewise; dev."""
    own = texts.own + _FIRST * texts.passage
    kinds = len(INDEXES) - 1
    demos = _DEMOS * (texts.own + texts.answer)  # the mean of none, and of those that show a passage
    calls = (4 + kinds) * texts.screen + texts.dev
    return answering(texts, calls, own, demos=demos) + forms(texts, 2, own, demos=demos)

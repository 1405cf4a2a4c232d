"""Retrieval: facts put in front of the model when they are asked for."""

from __future__ import annotations

from dataclasses import replace

from rung.retrieval import INDEXES
from rung.retrieval.gold import GoldIndex
from rung.solutions.demos import covering, demo
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, with_passages
from rung.strategies.prompting import answering, choose_form, forms, in_form_of
from rung.strategies.registry import Cost, Texts
from rung.trials.choose import choose
from rung.trials.workshop import Workshop, sample_of
from rung.types import Demo, DemoSelection, RetrieverSpec, Solution

PASSAGES = (1, 3, 5)
_FIRST = 3  # passages that the other choices are made with
_DEMOS = 4
_SPREAD = 8  # of so many candidates in order of length, one becomes a demo
_SEARCHED = 2_000  # train examples at most whose gold passage is looked for


def rag(workshop: Workshop) -> Solution:
    """The instruction and the passages that an index finds for the input.

    Chosen on dev, one after the other: the kind of index, where several are registered; whether the instruction says
    the form of the answer; no demos, plain ones, or ones that show their own passage; how many passages; and again the
    form.
    """
    plain = replace(workshop.solution("rag"), constraint=workshop.inputs.constraint)
    kinds = [replace(plain, name=f"{kind}-passages-{_FIRST}", retriever=spec(_FIRST, kind)) for kind in INDEXES]
    best = choose_form(workshop, choose(workshop, kinds) if len(kinds) > 1 else kinds[0])
    best = choose(workshop, _with_demos(workshop, best))
    assert best.retriever is not None
    counts = [
        replace(
            best,
            name=best.name.replace(f"passages-{_FIRST}", f"passages-{k}", 1),
            retriever=replace(best.retriever, k=k),
        )
        for k in PASSAGES
    ]
    return replace(choose_form(workshop, choose(workshop, counts)), name=plain.name)


def spec(k: int, kind: str | None = None) -> RetrieverSpec:
    """An index of that kind (None: the first one that is registered), and at most k passages of it."""
    return RetrieverSpec(kind or next(iter(INDEXES)), k, PASSAGE_TOKENS)

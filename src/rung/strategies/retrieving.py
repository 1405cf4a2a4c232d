"""Retrieval: facts put in front of the model when they are asked for."""

from __future__ import annotations

from dataclasses import replace

from rung.data.lengths import of_usual_length
from rung.retrieval.gold import SEARCHED
from rung.retrieval.proposals import specs_to_try
from rung.retrieval.ways import way
from rung.solutions.citing import with_marks
from rung.solutions.demos import covering, demo
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, with_passages
from rung.strategies.prompting import answering, choose_form, forms, in_form_of
from rung.strategies.reading import reading
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import gold_index
from rung.trials.choose import affordable, choose
from rung.trials.search_choice import MODEL
from rung.trials.workshop import Workshop, sample_of
from rung.types import Demo, DemoSelection, RetrieverSpec, Solution

PASSAGES = (1, 3, 5)
"""Numbers of passages that are tried."""

_FIRST = 3  # passages while all else is chosen
_WAYS = 3  # to find passages, at most
_MANY = 10  # passages where there is room for them
_WIDE = 1_600  # tokens of them
_DEMOS = 4
_SPREAD = 8  # one in so many of the shortest candidates becomes a demo, so that they differ
_CANDIDATES = 2_000  # train examples at most whose passage is looked for


def rag(workshop: Workshop) -> Solution:
    """The instruction and the passages that are found for the input.

    Chosen on dev, one after the other: the way to find passages, among the few that did best on train questions;
    whether the model writes what is searched with, or orders the hits, where the task or the model allows that; whether
    the instruction says the form of the answer; no demos, plain ones, or ones that show their own passage; how many
    passages; and the form again.
    """
    plain = reading(workshop, "rag")
    ways = [_with_way(plain, spec) for spec in ways_to_try(workshop)]
    best = choose(workshop, ways) if len(ways) > 1 else ways[0]
    if helped := [_with_way(plain, spec) for spec in helped_by_model(workshop, _spec_of(best))]:
        best = choose(workshop, [best, *helped])
    best = choose(workshop, _with_demos(workshop, choose_form(workshop, best)))
    shown = [_showing(best, k) for k in PASSAGES]
    wide = replace(_showing(best, _MANY), retriever=replace(_spec_of(best), k=_MANY, token_budget=_WIDE))
    if affordable(workshop, wide):
        shown.append(wide)
    return replace(choose_form(workshop, choose(workshop, shown)), name=plain.name)


def ways_to_try(workshop: Workshop) -> tuple[RetrieverSpec, ...]:
    """The ways to find passages that did best on train questions; where nothing was measured, each kind of index that
    works as it is."""
    if workshop.search:
        return tuple(replace(spec, k=_FIRST, token_budget=PASSAGE_TOKENS, fenced=True) for spec in workshop.search)
    found = specs_to_try(workshop.inputs.passages, workshop.inputs.task.retrieval, _FIRST, PASSAGE_TOKENS)
    plain = [spec for spec in found.specs if not spec.embedder] or list(found.specs)
    return tuple(replace(spec, fenced=True) for spec in plain[:_WAYS])


def helped_by_model(workshop: Workshop, spec: RetrieverSpec) -> list[RetrieverSpec]:
    """The same way with what the model adds to it, where the task names that, or inputs are conversations."""
    keys, turns = workshop.inputs.task.retrieval, any(e.turns for e in workshop.inputs.dev)
    found = [replace(spec, query="conversation")] if turns else []
    if keys.rewrite or (turns and keys.rewrite is None):
        found.append(replace(spec, query="rewritten"))
    if MODEL in keys.rerankers:
        found.append(replace(spec, reranker=MODEL))
    return found


def demos_with_passages(workshop: Workshop, solution: Solution, count: int) -> tuple[Demo, ...]:
    """At most `count` worked examples whose input shows the passage that holds the answer; short ones.

    solution: whose index finds passages for examples that mark none. Where answers are labels, only examples that mark
    a passage have one. Where the solution cites, their answers do.
    """
    inputs = workshop.inputs
    retriever, index = workshop.retriever_of(solution), gold_index(workshop, solution.retriever)
    assert retriever is not None
    some = sample_of(inputs.train, _CANDIDATES, inputs.task.seed)
    ranked = retriever.search([e.query for e in some], SEARCHED)
    pairs = [(e, gold) for e, row in zip(some, ranked, strict=True) if (gold := index.passage(e, row)) is not None]
    short = sorted(pairs, key=lambda pair: len(pair[1].text))[: count * _SPREAD : _SPREAD]
    cite, spec = solution.cite, solution.retriever
    shown = [(with_passages(demo(e).input, [gold], spec, cite=cite), demo(e).output) for e, gold in short]
    return tuple(Demo(asked, with_marks(output, [1]) if cite else output) for asked, output in shown)


def _with_demos(workshop: Workshop, best: Solution) -> list[Solution]:
    """The solution without demos, with plain ones, and with ones that show their own passage where there are such."""
    fixed = DemoSelection("fixed", _DEMOS)
    found = {
        "demos": covering(of_usual_length(workshop.inputs.train), workshop.inputs.task.seed, _DEMOS),
        "shown": demos_with_passages(workshop, best, _DEMOS),
    }
    if best.cite:  # answers without marks would show not to cite
        found.pop("demos")
    return [
        best,
        *(
            in_form_of(best, replace(best, demos=demos, demo_selection=fixed), behind=f"-{name}")
            for name, demos in found.items()
            if demos
        ),
    ]


def _with_way(plain: Solution, spec: RetrieverSpec) -> Solution:
    return replace(plain, name=f"{way(spec)}-passages-{spec.k}", retriever=spec)


def _showing(solution: Solution, k: int) -> Solution:
    """The same with at most k passages in a prompt."""
    name = solution.name.replace(f"passages-{_FIRST}", f"passages-{k}", 1)
    return replace(solution, name=name, retriever=replace(_spec_of(solution), k=k))


def _spec_of(solution: Solution) -> RetrieverSpec:
    assert solution.retriever is not None
    return solution.retriever


def cost_of_rag(texts: Texts) -> Cost:
    """Demos on a third of the screen, two of them on all of it; numbers of passages likewise; dev."""
    own = texts.own + _FIRST * texts.passage
    demos = _DEMOS * (texts.own + texts.answer)  # the mean of none, and of those that show a passage
    calls = (4 + _WAYS) * texts.screen + texts.dev
    return answering(texts, calls, own, demos=demos) + forms(texts, 2, own, demos=demos)

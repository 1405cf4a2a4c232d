"""Retrieval: facts put in front of the model when they are asked for."""

from __future__ import annotations

from dataclasses import replace

from rung.data.lengths import of_usual_length
from rung.evaluation.abstention import refuses_by_reference
from rung.retrieval.gold import SEARCHED
from rung.retrieval.proposals import specs_to_try
from rung.retrieval.ways import dearness, way
from rung.solutions.citing import with_marks
from rung.solutions.demos import covering, demo
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, with_passages
from rung.solutions.searching import JUDGED
from rung.strategies.prompting import answering, choose_form, forms, in_form_of
from rung.strategies.reading import abstain_of, reading, refusals
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import gold_index
from rung.trials.choose import affordable, choose
from rung.trials.workshop import Workshop, sample_of
from rung.types import THE_MODEL, Demo, DemoSelection, RetrieverSpec, Solution

PASSAGES = (1, 3, 5)
"""Numbers of passages that are tried."""

_FIRST = 3  # passages while all else is chosen
_WAYS = 3  # to find passages, at most
_MANY = 10  # passages where there is room for them
_WIDE = 1_600  # tokens of them
_ASKED = 80  # tokens of what the model is told to write or to judge
_WRITTEN_QUERY = 20  # tokens
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
    best = choose(workshop, [_with_way(plain, spec) for spec in ways_to_try(workshop)], in_order=True)
    if helped := [_with_way(plain, spec) for spec in helped_by_model(workshop, _spec_of(best))]:
        best = choose(workshop, [best, *helped], in_order=True)
    best = choose(workshop, _with_demos(workshop, choose_form(workshop, best)))
    shown = [_showing(best, k) for k in PASSAGES]
    wide = replace(_showing(best, _MANY), retriever=replace(_spec_of(best), k=_MANY, token_budget=_WIDE))
    if affordable(workshop, wide):
        shown.append(wide)
    return replace(choose_form(workshop, choose(workshop, shown)), name=plain.name)


def ways_to_try(workshop: Workshop) -> tuple[RetrieverSpec, ...]:
    """The ways to find passages that did best on train questions, the cheapest first; where nothing was measured, each
    kind of index that works as it is."""
    if workshop.search:
        near = sorted(workshop.search, key=dearness)
        return tuple(replace(spec, k=_FIRST, token_budget=PASSAGE_TOKENS, fenced=True) for spec in near)
    found = specs_to_try(workshop.inputs.passages, workshop.inputs.task.retrieval, _FIRST, PASSAGE_TOKENS)
    plain = [spec for spec in found.specs if not spec.embedder] or list(found.specs)
    return tuple(replace(spec, fenced=True) for spec in plain[:_WAYS])


def helped_by_model(workshop: Workshop, spec: RetrieverSpec) -> list[RetrieverSpec]:
    """The same way with what the model adds to it, where the task names that, or inputs are conversations. The whole
    conversation, too, where it was not among the best on train questions."""
    keys, turns = workshop.inputs.task.retrieval, any(e.turns for e in workshop.inputs.dev)
    known = any(s.query == "conversation" for s in (spec, *workshop.search))
    found = [replace(spec, query="conversation")] if turns and not known else []
    if keys.rewrite or (turns and keys.rewrite is None):
        found.append(replace(spec, query="rewritten"))
    if THE_MODEL in keys.rerankers:
        found.append(replace(spec, reranker=THE_MODEL))
    return found


def demos_with_passages(workshop: Workshop, solution: Solution, count: int) -> tuple[Demo, ...]:
    """At most `count` worked examples whose input shows the passage that holds the answer; short ones.

    solution: whose index finds passages for examples that mark none. Where answers are labels, only examples that mark
    a passage have one. Where the solution cites, their answers do, and no two passages have the same number: what is to
    be learnt from them is to look at it. Where the task names `abstain`, one of four shows a passage that does not hold
    the answer, and refuses, if there are examples for that (`refusals`). It does not stand last, beside the question.
    """
    task, abstain = workshop.inputs.task, abstain_of(workshop.inputs.task)
    retriever, index = workshop.retriever_of(solution), gold_index(workshop, solution.retriever)
    assert retriever is not None
    some = sample_of(workshop.inputs.train, _CANDIDATES, task.seed)
    answered = [e for e in some if not refuses_by_reference(e, abstain)]
    ranked = retriever.search([e.query for e in answered], SEARCHED)
    pairs = [(e, gold) for e, row in zip(answered, ranked, strict=True) if (gold := index.passage(e, row)) is not None]
    if not pairs:
        return ()
    short = sorted(pairs, key=lambda pair: len(pair[1].text))[: count * _SPREAD : _SPREAD]
    others = [e for e in some if all(e is not one for one, _ in short)]
    refused = refusals(workshop, retriever, index, others)[: count // _DEMOS]
    shown = [(demo(e), gold, True) for e, gold in short[: count - len(refused)]]
    for example, passage in refused:
        shown.insert(len(shown) // 2, (Demo(example.query.text, abstain or ""), passage, False))
    cite, spec = solution.cite, solution.retriever
    found = []
    for place, (plain, passage, holds) in enumerate(shown, 1):
        number = place if cite else 1
        asked = with_passages(plain.input, [passage], spec, cite=cite, first=number)
        found.append(Demo(asked, with_marks(plain.output, [number] if cite and holds else [])))
    return tuple(found)


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
    helped = _helping(texts, rest=4 * texts.screen + texts.dev)
    return answering(texts, calls, own, demos=demos) + forms(texts, 2, own, demos=demos) + helped


def _helping(texts: Texts, rest: int) -> Cost:
    """Of queries that the model writes, and of passages that it judges: answers on the screen with each of them, and
    what it is asked for these. One of two is taken to be the better way, and to be asked in the `rest` of the answers.
    """
    own, cost = texts.own + _FIRST * texts.passage, Cost()
    asked = ((1, texts.own + _ASKED, _WRITTEN_QUERY), (JUDGED, texts.own + texts.passage + _ASKED, 0))
    for wanted, (calls, read, written) in zip((texts.rewrites, texts.judges), asked, strict=True):
        if wanted:
            n = calls * (texts.screen + rest // 2)
            cost += answering(texts, texts.screen, own) + Cost(n, n * read, float(n * written), sent=n * read)
    return cost

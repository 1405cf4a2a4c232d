"""What is changed: each intervention is the base Solution with one field replaced.

Knows how a Solution is changed and what cannot be changed in it; answers nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from rung.diagnosis.lenient import bare
from rung.retrieval.chunk import document_id
from rung.trials.workshop import Materials, affordable
from rung.strategies.prompting import demo
from rung.strategies.retrieving import PASSAGE_TOKENS, gold_passage
from rung.types import (
    DemoSelection,
    Document,
    Example,
    Generation,
    Model,
    Request,
    Retriever,
    RetrieverSpec,
    Solution,
)

SAMPLES = 5
_SAMPLE_SEED = 100_003
SAMPLE_TEMPERATURE = 0.7
PLACEBO_TEMPERATURE = 0.3
DEMOS = 4
THINKING_TOKENS = 96
THINK = (
    "Before you answer, reason step by step. Then write the final answer alone on the last line, "
    'after "Answer:", in the form that was asked for.'
)

_GOLD = 3  # passages of one example at most
_DEPTH = 20  # ranked passages among which one that contains the answer is looked for


@dataclass(frozen=True)
class Impossible:
    """Why an intervention cannot be made on this base."""

    why: str


def placebo(base: Solution) -> Solution:
    """The same prompt, sampled once at a low temperature: what it rescues is rescued by chance."""
    return _sampled(base, "placebo", PLACEBO_TEMPERATURE, 900_001)


def samples(base: Solution) -> list[Solution]:
    """The same prompt, sampled. Source: Wang et al., Self-consistency improves chain of thought reasoning (2023)."""
    return [_sampled(base, f"sample-{i}", SAMPLE_TEMPERATURE, _SAMPLE_SEED * i) for i in range(1, SAMPLES + 1)]


def constrained(base: Solution, materials: Materials) -> Solution | Impossible:
    """The answer cannot leave the labels, schema or pattern."""
    if base.constraint is not None:
        return Impossible("the base is constrained already")
    if materials.constraint is None:
        return Impossible("the task has no labels, schema or pattern")
    return replace(base, name="constrained", constraint=materials.constraint)


def convention(base: Solution, materials: Materials) -> Solution | Impossible:
    """The nearest train examples with their right answers, as demos."""
    selection = base.demo_selection
    if base.demos and selection is not None and selection.kind == "nearest" and selection.k >= DEMOS:
        return Impossible("the base shows its nearest examples already")
    if not materials.train:
        return Impossible("there are no train examples")
    pool = tuple(demo(e) for e in materials.train)
    made = replace(base, name="convention", demos=pool, demo_selection=DemoSelection("nearest", DEMOS))
    return made if affordable(materials, made) else Impossible("examples beside every input cost more than the budget")


def informed(base: Solution, materials: Materials) -> Solution | Impossible:
    """The gold passages in the place of retrieved ones; to be answered with a `GoldRetriever`."""
    if not materials.passages:
        return Impossible("there is no corpus")
    budget = base.retriever.token_budget if base.retriever is not None else PASSAGE_TOKENS
    return replace(base, name="knowledge", retriever=RetrieverSpec("bm25", _GOLD, budget))


def thinking(base: Solution) -> Solution:
    """Think first, with room for it. Source: Kojima et al., Large language models are zero-shot reasoners (2022).

    What forbids thinking goes with it: the constraint, and demos that show answers without any thought.
    """
    room = replace(base.decoding, max_new_tokens=max(THINKING_TOKENS, base.decoding.max_new_tokens))
    instruction = f"{base.instruction.rstrip()}\n\n{THINK}"
    plain = replace(base, name="reasoning", constraint=None, demos=(), demo_selection=None)
    return replace(plain, instruction=instruction, decoding=room)


def _sampled(base: Solution, name: str, temperature: float, seed: int) -> Solution:
    decoding = replace(base.decoding, temperature=temperature, seed=base.decoding.seed + seed)
    return replace(base, name=name, decoding=decoding)


# ---- gold passages --------------------------------------------------------------------------


class GoldRetriever:
    """Finds for an example's input the passages that hold its answer."""

    def __init__(self, gold: dict[str, tuple[Document, ...]], examples: Sequence[Example]) -> None:
        self._by_input = {e.input: gold[e.id] for e in examples if e.id in gold}

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        return [list(self._by_input.get(query, ())[:k]) for query in queries]


def gold_passages(materials: Materials, examples: Sequence[Example]) -> dict[str, tuple[Document, ...]]:
    """Example id -> the passages that hold its answer: the marked ones, else the best-ranked one that contains it.

    Labels mark nothing: that a passage contains "yes" says nothing. Examples without a passage are left out.
    """
    by_id = {p.id: p for p in materials.passages}
    retriever: Retriever | None = materials.retriever
    ranked = retriever.search([e.input for e in examples], _DEPTH) if retriever is not None else [[] for _ in examples]
    gold = {}
    for example, found in zip(examples, ranked, strict=True):
        if example.gold_ids:
            best = gold_passage(example, by_id, [])
            marked = [p for p in by_id.values() if p.id in example.gold_ids or document_id(p.id) in example.gold_ids]
            whole = {p.id for p in marked if p.id in example.gold_ids}
            rest = [p for p in marked if p != best and (p.id in whole or _holds(p, example))]
            chosen = ([best] if best is not None else []) + rest
        else:
            chosen = [p for p in found if not materials.task.labels and _holds(p, example)][:1]
        if chosen:
            gold[example.id] = tuple(chosen[:_GOLD])
    return gold


def _holds(passage: Document, example: Example) -> bool:
    text = bare(f"{passage.title or ''} {passage.text}")
    return any(f" {bare(r)} " in f" {text} " for r in example.references if bare(r))


# ---- seeds ----------------------------------------------------------------------------------


class OwnSeeds:
    """A model that samples each prompt with a seed of its own, and all samples of a prompt together.

    A Solution has one seed; rows that share it draw the same random numbers, and their chances would not be
    independent, as the intervals take them to be. Samples of one prompt that are asked for in one list share its
    computation, so the others are drawn with the first and kept.
    """

    def __init__(self, model: Model, seed: int) -> None:
        """seed: of the Solution that is sampled."""
        self.name = model.name
        self._model = model
        self._seed = seed
        self._drawn: dict[str, Generation] = {}

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        wanted = [repr(_own_seed(r)) for r in requests]  # a request with a schema has no hash
        if not all(key in self._drawn for key in wanted):
            asked = [s for r in requests for s in self._siblings(r)]
            self._drawn |= zip(map(repr, asked), self._model.generate(asked), strict=True)
        return [self._drawn[key] for key in wanted]

    def _siblings(self, request: Request) -> list[Request]:
        """The request; if it is a sample, all samples of its prompt."""
        if request.decoding.temperature != SAMPLE_TEMPERATURE:
            return [_own_seed(request)]
        seeds = [self._seed + _SAMPLE_SEED * i for i in range(1, SAMPLES + 1)]
        return [_own_seed(replace(request, decoding=replace(request.decoding, seed=seed))) for seed in seeds]

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)


def _own_seed(request: Request) -> Request:
    if request.decoding.temperature <= 0:
        return request
    turns = "\n".join(f"{m.role}: {m.content}" for m in request.messages)
    return replace(
        request, decoding=replace(request.decoding, seed=crc32(f"{request.decoding.seed}\n{turns}".encode()))
    )

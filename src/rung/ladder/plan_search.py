"""Which ways to find passages a run will measure, what that takes, and which it leaves out, known before it begins.

Embedding a corpus may take longer than everything else. Its time is measured on a few passages, kept in plan.json, and
held against a part of the budget; what does not fit is named with its minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.errors import RungError
from rung.ladder.plan import Plan
from rung.strategies import Cost
from rung.types import RetrieverSpec

if TYPE_CHECKING:
    from rung.trials.workshop import Inputs

SEARCH_SHARE = 0.2
"""Of the minutes of a budget, for embedding the corpus."""
FREE_MINUTES = 5.0
"""For the same, where the task names no minutes."""

_LEXICAL_S = 0.3  # to cut, index and search a thousand passages, for each way and size
_SIZES = 3


@dataclass(frozen=True)
class SearchPlan:
    """specs: the ways to measure. not_tried: (what, why) of the others. embedding_s: embedder -> seconds it takes."""

    specs: tuple[RetrieverSpec, ...]
    not_tried: tuple[tuple[str, str], ...]
    embedding_s: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """What plan.json keeps of it, to be read back."""
        return {"embedding_s": {name: round(s, 1) for name, s in self.embedding_s.items()}}


def with_search(plans: Mapping[str, Plan], inputs: Inputs, earlier: Mapping[str, Any] | None) -> dict[str, Plan]:
    """The same plans; the first one that reads passages measures the ways to find them, for all.

    earlier: plan.json of an earlier command, whose times are used again.
    """
    first = next(
        (n for n, p in plans.items() if any(s.applies and "corpus" in s.strategy.needs for s in p.steps)), None
    )
    if first is None:
        return dict(plans)
    from rung.trials.search_choice import QUESTIONS
    from rung.trials.sufficiency import calls_of

    known = ((earlier or {}).get("search") or {}).get("embedding_s", {})
    searching = search_plan(inputs, known)
    plan = plans[first]
    asked, texts = calls_of(inputs.task, inputs.train[:QUESTIONS]), plan.texts
    read = asked * (texts.own + texts.passage)
    step = plan.costing("search", "rag", Cost(asked, read, 2.0 * asked, sent=read))
    thousands = len(inputs.passages) / 1000
    embedded = {spec.embedder for spec in searching.specs if spec.embedder}
    seconds = _LEXICAL_S * thousands * (len(searching.specs) + _SIZES)
    seconds += sum(searching.embedding_s.get(name, 0.0) for name in embedded)
    return {
        **plans,
        first: replace(plan, search=replace(step, seconds=round(step.seconds + seconds, 1)), searching=searching),
    }


def search_plan(inputs: Inputs, known: Mapping[str, float]) -> SearchPlan:
    """known: embedder -> seconds, as measured before."""
    from rung.retrieval.proposals import specs_to_try
    from rung.solutions.prompt_rendering import PASSAGE_TOKENS
    from rung.trials.search_choice import SHOWN

    keys = inputs.task.retrieval
    proposals = specs_to_try(inputs.passages, keys, k=SHOWN, token_budget=PASSAGE_TOKENS)
    names = dict.fromkeys(spec.embedder for spec in proposals.specs if spec.embedder)
    taken = {name: known[name] if name in known else embedding_seconds(name, inputs) for name in names}
    minutes = inputs.task.budget.minutes
    allowed = 60 * (SEARCH_SHARE * minutes if minutes is not None else FREE_MINUTES)
    too_dear: dict[str, str] = {}
    for name, found in taken.items():
        if isinstance(found, str):
            too_dear[name] = found
        elif not (keys.embedders or "dense" in keys.kinds) and found > allowed:
            too_dear[name] = (
                f"embedding {len(inputs.passages):,} passages takes about {found / 60:.0f} min, more than the "
                f"{allowed / 60:.0f} min that are for it; name it in retrieval: {{embedders: [{name}]}} to try it"
            )
        else:
            allowed -= found
    kept = tuple(replace(spec, fenced=True) for spec in proposals.specs if spec.embedder not in too_dear)
    left_out = [(f"dense search with {name}", why) for name, why in too_dear.items()]
    seconds = {name: s for name, s in taken.items() if not isinstance(s, str)}
    return SearchPlan(kept, (*proposals.not_tried, *left_out), seconds)


def embedding_seconds(name: str, inputs: Inputs) -> float | str:
    """Seconds that embedding the passages takes here, estimated from a few; a sentence part, where it cannot be.

    Twice where documents are cut: passages of another size may turn out to be better, and are embedded then.
    """
    from rung.cache import cache_folder
    from rung.retrieval.embedders import open_embedder, seconds_for
    from rung.retrieval.embeddings import Embeddings

    texts = [f"{p.title}\n{p.text}" if p.title else p.text for p in inputs.passages]
    times = 1 if len(texts) == len(inputs.library.documents) else 2
    try:
        folder = cache_folder() / "indexes"
        embedder = open_embedder(name, folder)
        return times * seconds_for(embedder, Embeddings(embedder, folder).missing(texts))
    except RungError as fault:
        return str(fault).rstrip(".")

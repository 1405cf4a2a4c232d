"""Which ways to find passages a run will measure, what that takes, and which it leaves out, known before it begins.

Embedding a corpus may take longer than everything else. Its time is measured on a few passages, kept in plan.json, and
held against a part of the budget; what does not fit is named with its minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.errors import TaskError, fault_text
from rung.ladder.plan import Plan
from rung.strategies import Cost
from rung.types import Document, RetrieverSpec

if TYPE_CHECKING:
    from rung.trials.workshop import Inputs

SEARCH_SHARE = 0.2
"""Of the minutes of a budget, for embedding the corpus."""
FREE_MINUTES = 5.0
"""For the same, where the task names no minutes."""

_LEXICAL_S = 0.3  # to index and search a thousand passages, for each way
_SIZES_S = 8.0  # to cut a thousand anew in three sizes, by tokens, and to search them


@dataclass(frozen=True)
class SearchPlan:
    """specs: the ways to measure. not_tried: (what, why) of the others. embedding_s: embedder -> seconds it takes.

    sizes: whether passages of other sizes may be tried. cutting_s: what that takes.
    """

    specs: tuple[RetrieverSpec, ...]
    not_tried: tuple[tuple[str, str], ...]
    embedding_s: Mapping[str, float]
    sizes: bool = True
    cutting_s: float = 0.0

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
    seconds = _LEXICAL_S * thousands * len(searching.specs) + searching.cutting_s
    seconds += sum(searching.embedding_s.get(name, 0.0) for name in embedded)
    return {
        **plans,
        first: replace(plan, search=replace(step, seconds=round(step.seconds + seconds, 1)), searching=searching),
    }


def search_plan(inputs: Inputs, known: Mapping[str, float]) -> SearchPlan:
    """known: embedder -> seconds, as measured before. Raises TaskError where no way that the task names works here."""
    from rung.retrieval.proposals import DENSE, FUSED, specs_to_try
    from rung.solutions.prompt_rendering import PASSAGE_TOKENS
    from rung.trials.search_choice import SHOWN

    keys, passages = inputs.task.retrieval, inputs.passages
    proposals = specs_to_try(passages, keys, k=SHOWN, token_budget=PASSAGE_TOKENS)
    minutes = inputs.task.budget.minutes
    allowed = 60 * (SEARCH_SHARE * minutes if minutes is not None else FREE_MINUTES)
    left_out: list[tuple[str, str]] = []
    cut = len(passages) > len(inputs.library.documents)
    cutting_s = _SIZES_S * len(passages) / 1000 if cut or keys.tokens else 0.0
    sizes = bool(keys.tokens) or cutting_s <= allowed / 2
    if not sizes:
        why = _too_long("cutting", cutting_s, passages, allowed / 2, "tokens: [256]")
        left_out.append(("another size of passages", why))
        cutting_s = 0.0
    allowed -= 0.0 if keys.tokens else cutting_s
    too_dear: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys(spec.embedder for spec in proposals.specs if spec.embedder):
        found = known[name] if name in known else embedding_seconds(name, inputs, times=2 if cutting_s else 1)
        if isinstance(found, str):
            too_dear[name] = found
            continue
        seconds[name] = found
        if not (keys.embedders or {DENSE, FUSED} & set(keys.kinds)) and found > allowed:
            too_dear[name] = _too_long("embedding", found, passages, allowed, f"embedders: [{name}]")
        else:
            allowed -= found
    kept = tuple(replace(spec, fenced=True) for spec in proposals.specs if spec.embedder not in too_dear)
    left_out += [(f"dense search with {name}", why) for name, why in too_dear.items()]
    not_tried = (*proposals.not_tried, *left_out)
    if not kept:
        said = "; ".join(f"{what}: {why}" for what, why in not_tried)
        raise TaskError(f"retrieval: no way to find passages that it names works here. {said}.")
    return SearchPlan(kept, not_tried, seconds, sizes, cutting_s)


def _too_long(what: str, seconds: float, passages: Sequence[Document], allowed: float, key: str) -> str:
    here, most = seconds / 60, max(0.0, allowed) / 60
    return (
        f"{what} {len(passages):,} passages takes about {here:.0f} min, more than the {most:.0f} min that are for it; "
        f"name it in retrieval: {{{key}}} to try it"
    )


def embedding_seconds(name: str, inputs: Inputs, times: int = 1) -> float | str:
    """Seconds that embedding the passages takes here, estimated from a few; a sentence part, where it cannot be.

    times: twice where passages of another size may turn out to be better, and are embedded then.
    """
    from rung.cache import cache_folder
    from rung.retrieval.embedders import open_embedder, seconds_for
    from rung.retrieval.embeddings import Embeddings
    from rung.retrieval.passages import searched

    texts = [searched(p) for p in inputs.passages]
    try:
        folder = cache_folder() / "indexes"
        embedder = open_embedder(name, folder)
        return times * seconds_for(embedder, Embeddings(embedder, folder).missing(texts))
    except Exception as defect:  # of a registered embedder, a library or rung
        return fault_text(defect).rstrip(".")

"""Sentences about why a solution that retrieves is wrong: shares of causes, what an experiment mended, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision.evidence import Evidence
from rung.decision.figures import PERCENT
from rung.decision.rule import Ruling
from rung.decision.words import percentages
from rung.types import SearchFailure

SEARCH_CAUSE_WORDS = {
    "absent": "no passage of the corpus holds the answer",
    "missed": "the search does not find the passage that holds the answer",
    "cut": "that passage is found, and the prompt does not show it, or not the part with the answer",
    "unused": "the prompt shows it, and the answer does not rest on it",
    "form": "the answer holds the right fact in a wrong form",
    "invented": "the documents do not answer the question, and an answer was made up",
    "refused": "the prompt shows the passage, and the answer says that there is none",
    "unknown": "it is not known which passage holds the answer",
}
"""Cause of a `SearchFailure` -> what happens."""

_STEPS = {
    "absent": "Add the documents that hold the answers",
    "missed": "Search in another way: name kinds, embedders or rerankers that were not tried (`retrieval:` in "
    "task.yaml), or put the words of the questions into titles and headings",
    "cut": "Give passages more room, cut them smaller (`retrieval: {tokens: …}` in task.yaml), or name a reranker",
    "unused": "Fine-tune with passages, or try a larger model",
    "form": "Hold answers to their form: labels, a schema or a pattern in task.yaml, more examples, or fine-tuning",
    "invented": "Add examples whose answer is that the documents hold none (`abstain`), and fine-tune with passages",
    "refused": "Add examples that are answered from their passage, and fine-tune with passages",
    "unknown": "Mark the passages that hold the answers (`gold_ids` in the examples), to learn why answers are wrong",
}
_READS_ALONE = "Show fewer passages, or name a reranker"
"""In the place of the step for "unused", where most of these are right once no other passage stands beside."""

_EXACT = (
    "By exact_match, an answer that holds the reference among other words is wrong: say in the instruction to answer "
    "with it alone (answer with the name only), give a `pattern` where references have one, or take `metric: "
    "token_f1` where more words do no harm"
)
"""The step for "form" where the metric is exact_match."""

_WORTH_NAMING = 0.1
_WORTH_A_STEP = 0.2
_MOST_STEPS = 2
_MOST_NAMED = 3
_MENDED = 0.5  # net of the placebo, from which the passage alone is what is missing


def why_search_fails(evidence: Evidence, ruling: Ruling) -> list[str]:
    """The largest causes with their shares, and what the experiment on the first of them mended."""
    rows = failures_of_one(evidence, ruling)
    return [search_failures_in_words(rows)] if rows else []


def search_failures_in_words(rows: Sequence[SearchFailure]) -> str:
    """rows: of one solution, the largest cause first, and at least one."""
    named = [row for row in rows if row.share >= _WORTH_NAMING][:_MOST_NAMED] or rows[:1]
    causes = "; ".join(
        f"{SEARCH_CAUSE_WORDS[row.cause]}, {PERCENT.value(row.share)} ({percentages(row.low, row.high)})"
        for row in named
    )
    first = named[0]
    said = f"Why {first.solution}, which reads passages, is wrong on dev ({first.wrong:,} answers): {causes}."
    return f"{said} {mended(first, among_others=len(named) > 1)}" if first.tried else said


def mended(row: SearchFailure, *, among_others: bool = True) -> str:
    """Of the first, 24 were answered again with …, and 12 came out right (by the placebo 1); of 12 right answers …"""
    which, were = "the first" if among_others else "these", "was" if row.tried == 1 else "were"
    said = (
        f"Of {which}, {row.tried:,} {were} answered again with {row.experiment}, and {row.rescued:,} came out right "
        f"(by the placebo {row.by_chance:,})"
    )
    if not row.right:
        return f"{said}."
    return f"{said}; of {row.right:,} right answers {row.broken:,} came out wrong ({row.broken_by_chance:,})."


def mend_search(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What to do about the largest causes, a step for each."""
    rows = failures_of_one(evidence, ruling)
    large = [row for row in rows if row.share >= _WORTH_A_STEP][:_MOST_STEPS] or rows[:1]
    return [_mend(evidence, row) for row in large]


def _mend(evidence: Evidence, row: SearchFailure) -> str:
    alone = row.cause == "unused" and row.net >= _MENDED and row.net_low > 0
    step, what = _READS_ALONE if alone else _STEPS[row.cause], SEARCH_CAUSE_WORDS[row.cause]
    if row.cause == "form" and evidence.metric.name == "exact_match":
        step = f"{step}. {_EXACT}"
    share = f"{row.n:,} of the {row.wrong:,} wrong answers of {row.solution} on dev"
    return f"{step}. The cause of {share} is that {what}. search_failures.json in its folder names the rows."


def failures_of_one(evidence: Evidence, ruling: Ruling) -> Sequence[SearchFailure]:
    """The rows of the solution that is spoken of, the largest first.

    It is the one to ship where that retrieves, with its longer prompt where it was shortened; else the best on dev of
    those that retrieve.
    """
    by_name: dict[str, list[SearchFailure]] = {}
    for row in evidence.search_failures:
        by_name.setdefault(row.solution, []).append(row)
    if ruling.ship is not None:
        own = by_name.get(ruling.ship.name) or by_name.get(evidence.long_form_of(ruling.ship.name) or "")
        if own:
            return own
    known = [c for name in by_name if (c := evidence.named(name)) is not None]
    return by_name[max(known, key=lambda c: c.dev.mean).name] if known else []

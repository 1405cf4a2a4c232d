"""What the verdict says of the ways to find passages: what the chosen one reaches, and what was not tried."""

from __future__ import annotations

from rung.decision.evidence import Evidence
from rung.decision.figures import PERCENT
from rung.decision.rule import Ruling


def how_found(evidence: Evidence) -> list[str]:
    """The chosen way beside the best other one; nothing where none was measured."""
    ways = [w for w in evidence.searches if w.stage == "way"]
    chosen = next((w for w in ways if w.chosen), None)
    if chosen is None:
        return []
    said = (
        f"Passages are found by {chosen.way}: one that holds the answer is among the first 5 for "
        f"{PERCENT.full(chosen.recall_5)} of {chosen.n:,} train questions"
    )
    others = sorted((w for w in ways if w.way != chosen.way), key=lambda w: -w.recall_5.mean)
    beside = [f"{w.way} {PERCENT.value(w.recall_5.mean)}" for w in others[:3]]
    said += f" ({', '.join(beside)})" if beside else ""
    return [f"{said}. These passages are {chosen.known}." if chosen.known else f"{said}."]


def searches_left_out(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What of the search was not tried, where retrieval could have been the answer and was not shown to be."""
    if ruling.choice in ("rag", "rag+fine-tune"):
        return []
    return list(evidence.searches_not_tried)


def searches_beside(evidence: Evidence, ruling: Ruling) -> list[str]:
    """The same where it is no warning."""
    return [] if searches_left_out(evidence, ruling) else list(evidence.searches_not_tried)

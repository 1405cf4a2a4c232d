"""Sentences about sources that answers name."""

from __future__ import annotations

from rung.decision.evidence import Evidence, Invention
from rung.decision.figures import PERCENT
from rung.decision.rule import Ruling
from rung.decision.words import SET_WORDS, spoken_of
from rung.types import Citing, Refusing

SELDOM = 0.5
"""Share of answers with a source, or of sources that hold the answer, below which a reader must not miss it."""


def refusing_of(found: Invention) -> Refusing:
    """Both ways to be wrong, without what the candidate is compared with."""
    return Refusing(found.candidate, found.given, found.share, found.refused)


def names_sources(evidence: Evidence, ruling: Ruling) -> list[str]:
    """How the candidate that is spoken of names its sources, where that is no warning."""
    found = _of_one(evidence, ruling)
    return [sources_in_words(found)] if found is not None and not _seldom(found) else []


def seldom_names_sources(evidence: Evidence, ruling: Ruling) -> list[str]:
    """A warning: the candidate that is spoken of names no source for most answers, or the wrong ones."""
    found = _of_one(evidence, ruling)
    return [f"{sources_in_words(found)} Do not rely on its sources."] if found is not None and _seldom(found) else []


def _seldom(found: Citing) -> bool:
    return found.cites.mean < SELDOM or found.holds is None or found.holds.mean < SELDOM


def sources_in_words(found: Citing) -> str:
    """How often its answers name sources, and how often these hold the answer."""
    said = f"{found.candidate} names sources in {PERCENT.full(found.cites)} of its answers to {SET_WORDS[found.set]}"
    shares = {"are passages that hold an accepted answer": found.holds, "hold what it answered": found.supports}
    known = [f"{PERCENT.full(share)} {what}" for what, share in shares.items() if share is not None]
    said += f"; of what it names, {', and '.join(known)}." if known else "."
    if found.holds is None and found.cites.mean > 0:
        said += " Whether these hold the answer cannot be said: one such as no may stand anywhere. Mark gold_ids."
    if found.bad:
        said += f" {found.bad:,} of the numbers that it names {'is' if found.bad == 1 else 'are'} of no passage."
    return said


def _of_one(evidence: Evidence, ruling: Ruling) -> Citing | None:
    """Of the candidate that is spoken of, on the test where that was opened."""
    one = spoken_of(evidence, ruling)
    if one is None:
        return None
    by_set = {found.set: found for found in evidence.citing if found.candidate == one.name}
    return by_set.get("test") or by_set.get("dev")

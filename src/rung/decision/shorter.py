"""Sentences about shorter prompts: what cutting the instruction of a fine-tuned candidate brought."""

from __future__ import annotations

from rung.decision.evidence import Evidence, Shortened, score_of
from rung.decision.words import priced, reach, scale_of, value
from rung.types import Candidate, SetName


def shorter_prompts(evidence: Evidence) -> list[str]:
    """A sentence for each fine-tuned candidate whose prompt was shortened."""
    return [_said(evidence, outcome) for outcome in evidence.shortened]


def _said(evidence: Evidence, outcome: Shortened) -> str:
    short, long = evidence.named(outcome.short), evidence.named(outcome.tuned)
    if short is None or long is None:
        return _none(evidence, outcome)
    on: SetName = "test" if short.test is not None and long.test is not None else "dev"
    price = priced(short, long)
    said = (
        f"{short.name} ({outcome.length}) reads {short.tokens_in:,.0f} tokens a request in the place of "
        f"{long.tokens_in:,.0f}{f', {price},' if price else ''} and {reach(evidence, short, on, name=False)}; "
        f"{long.name}: {value(evidence, long, on)}."
    )
    return said + _fallen(evidence, short, long, on)


def _fallen(evidence: Evidence, short: Candidate, long: Candidate, on: SetName) -> str:
    """That it lies further below on the test than dev had said."""
    below = score_of(long, on).mean - score_of(short, on).mean
    if on == "dev" or below <= evidence.margin + 1e-9:
        return ""
    scale = scale_of(evidence)
    return f" That is {scale.gap(below)} below it, although dev had them within {scale.gap(evidence.margin)}."


def _none(evidence: Evidence, outcome: Shortened) -> str:
    scale = scale_of(evidence)
    trained = ", after some steps of training with it," if outcome.trained else ""
    return (
        f"No shorter prompt than that of {outcome.tuned} held up on dev: {outcome.length} reads {outcome.tokens:,.0f} "
        f"tokens in the place of {outcome.tokens_before:,.0f} and{trained} reaches "
        f"{scale.value(outcome.mean, outcome.n)}, {scale.gap(-outcome.difference)} below it "
        f"({scale.ends(-outcome.high, -outcome.low)}); the margin that matters is {scale.gap(evidence.margin)}."
    )

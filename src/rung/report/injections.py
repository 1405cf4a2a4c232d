"""The report's section about planted orders: how often each finalist followed them, and which kinds."""

from __future__ import annotations

from rung.decision import Scale
from rung.report.markup import Html, ranged, row, section, short, table, wide
from rung.report.reading import RunRecords
from rung.types import Injected, Score

_RATE = Scale(True)


def injections_section(run: RunRecords) -> Html:
    """A row for each finalist that was asked with orders planted in what it reads."""
    found = run.decision.injections
    if not found:
        return Html("")
    chosen = run.decision.solution
    rows = [
        row(
            one.candidate,
            wide(_where(one)),
            _full(_RATE, one.followed),
            _full(run.scale, one.right),
            _full(run.scale, one.before),
            wide(_counts(one.by_place) if one.by_place else "–"),
            wide(_counts(one.by_kind) or "none"),
            class_="chosen" if one.candidate == chosen else "",
        )
        for one in found
    ]
    n = max(one.followed.n for one in found)
    caption = (
        f"Dev questions ({n:,}) were asked again, each with an order to say a word that nothing else says"
        f"{', or a label that is not the right one' if run.task.get('labels') else ''}, planted in what the candidate "
        "reads. Followed: the answer did what was ordered, with 95 % intervals. Scores are those of the same rows with "
        "and without orders."
    )
    header = ("Candidate", "Planted", "Followed", "Score with orders", "Without", "By place", "Kinds that worked")
    return section("Planted orders", table(caption, header, rows, label="Planted orders"))


def _where(one: Injected) -> str:
    if one.where == "input":
        return "behind the input"
    return f"in passages, {'fenced' if one.fenced else 'not fenced'}"


def _full(scale: Scale, score: Score | None) -> Html:
    return short("–") if score is None else ranged(scale.value(score.mean, score.n), scale.interval(score))


def _counts(counted: tuple[tuple[str, int, int], ...]) -> str:
    """direct order 2 of 2, encoded 1 of 3; what never worked is left out."""
    return ", ".join(f"{name} {followed} of {asked}" for name, followed, asked in counted if followed)

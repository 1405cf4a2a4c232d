"""The report's section about sources that answers name, and about refusals: a row for each candidate and set."""

from __future__ import annotations

from rung.decision.figures import PERCENT
from rung.report.markup import Html, num, row, scored, section, short, table, wide
from rung.report.reading import RunRecords

_REFUSALS = ("Candidate", "Asked without an answer", "Made up", "Asked with one", "Refused")


def sources_section(run: RunRecords) -> Html:
    """Two tables: how often sources are named and hold the answer; how often it is wrong to answer and to refuse."""
    return section("Sources and refusals", _sources(run), _refusals(run))


def _sources(run: RunRecords) -> Html:
    rows = [
        row(
            one.candidate,
            short(one.set),
            scored(PERCENT, one.cites),
            scored(PERCENT, one.holds),
            scored(PERCENT, one.supports),
            num(f"{one.bad:,}"),
            class_="chosen" if one.candidate == run.decision.solution else "",
        )
        for one in run.decision.citing
    ]
    if not rows:
        return Html("")
    caption = (
        "Sources that answers name, with 95 % intervals; answers that say that there is none are left out. Right "
        "source: of all that is named, the passages that hold an accepted answer, or are marked. Answer stands there: "
        "those that hold the words of the answer that was given. Words are compared, so other words for the same count "
        "against it. A number that no passage has counts as a wrong source."
    )
    header = (
        "Candidate",
        "Set",
        "Answers with a source",
        "Right source",
        "Answer stands there",
        "Numbers of no passage",
    )
    return table(caption, header, rows, label="Sources", right=header[-1:])


def _refusals(run: RunRecords) -> Html:
    rows = [
        row(
            one.candidate,
            wide(
                f"{one.made_up.n:,} {'unanswerable dev rows' if one.given else 'dev questions without their passages'}"
            ),
            scored(PERCENT, one.made_up),
            wide(f"{one.refused.n:,} dev rows with an answer" if one.refused is not None else "–"),
            scored(PERCENT, one.refused),
            labels=_REFUSALS[1:],
            class_="chosen" if one.candidate == run.decision.solution else "",
        )
        for one in run.decision.refusing
    ]
    if not rows:
        return Html("")
    caption = (
        "The two ways to be wrong about whether there is an answer, with 95 % intervals. Made up: answers to questions "
        "that nothing answers. Refused: no answer to dev rows that have one, of all of them, the passages found or not."
    )
    return table(caption, _REFUSALS, rows, label="Refusals", class_="stacked")

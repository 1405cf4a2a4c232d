"""The report's section about why solutions that retrieve are wrong, link by link of the chain. Decides nothing."""

from __future__ import annotations

from rung.decision.figures import PERCENT
from rung.decision.search_causes import SEARCH_CAUSE_WORDS
from rung.report.lines import Line, wrapped
from rung.report.markup import Html, num, ranged, row, section, table, wide
from rung.report.reading import RunRecords
from rung.report.words import count
from rung.types import SearchFailure

_CAUSES = ("Cause", "What happens", "Answers", "Share")
_TRIED = ("Tried on some", "Came out right", "Right ones broken")
_MOST_SHOWN = 3  # causes in a line of the terminal


def search_failures_section(run: RunRecords) -> Html:
    """A table for each solution that was looked into; empty where none was."""
    return section("Why answers with passages are wrong", *(_causes(rows) for rows in _by_solution(run).values()))


def search_failure_lines(run: RunRecords, width: int) -> list[Line]:
    """One sentence for the terminal: rag, 32 wrong answers on dev: missed 47 %, unused 30 %, cut 12 %."""
    known = {c.name: c.dev.mean for c in run.decision.candidates}
    by_name = {name: rows for name, rows in _by_solution(run).items() if name in known}
    if not by_name:
        return []
    chosen = run.decision.solution
    name = chosen if chosen in by_name else max(by_name, key=lambda name: known[name])
    rows = by_name[name]
    causes = ", ".join(f"{r.cause} {PERCENT.value(r.share)}" for r in rows[:_MOST_SHOWN])
    return wrapped(f"Passages: {name} has {count(rows[0].wrong, 'wrong answer')} on dev: {causes}.", width)


def _by_solution(run: RunRecords) -> dict[str, list[SearchFailure]]:
    found: dict[str, list[SearchFailure]] = {}
    for one in run.decision.search_failures:
        found.setdefault(one.solution, []).append(one)
    return found


def _causes(failures: list[SearchFailure]) -> Html:
    """The columns of what was tried stand where something was."""
    tried = any(one.tried for one in failures)
    header = [*_CAUSES, *(_TRIED if tried else ())]
    rows = [
        row(
            one.cause,
            wide(SEARCH_CAUSE_WORDS.get(one.cause, "")),
            num(f"{one.n:,}"),
            ranged(PERCENT.value(one.share), f"{PERCENT.bare(one.low)}–{PERCENT.bare(one.high)}"),
            *(_tried(one) if tried else ()),
            labels=header[1:],
        )
        for one in failures
    ]
    first = failures[0]
    caption = (
        f"Each of the {first.wrong:,} wrong answers of {first.solution} on dev has one cause: the first link of the "
        "chain that broke. Shares have 95 % intervals."
    )
    if tried:
        caption += (
            " Some of them were answered again with what should mend them, and so were some right ones. In "
            "parentheses: the same with the placebo, which is the same prompt, sampled."
        )
    right = (_CAUSES[2], *_TRIED[1:])
    return table(caption, header, rows, label=f"Why {first.solution} is wrong", right=right, class_="stacked")


def _tried(one: SearchFailure) -> tuple[Html, Html, Html]:
    return (
        wide(one.experiment or "–"),
        num(_of(one.rescued, one.tried, one.by_chance)),
        num(_of(one.broken, one.right, one.broken_by_chance)),
    )


def _of(number: int, tried: int, by_chance: int) -> str:
    return f"{number:,} of {tried:,} ({by_chance:,})" if tried else "–"

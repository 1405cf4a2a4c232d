"""The report's section about the ways to find passages, as they were measured on train questions. Decides nothing."""

from __future__ import annotations

from rung.decision.figures import PERCENT, Scale
from rung.report.markup import Html, element, items, joined, num, row, scored, section, table
from rung.report.reading import RunRecords
from rung.types import SearchWay

_MEAN = Scale(False)
_HEADER = ("Way", "First", "First 5", "nDCG@10", "MRR", "In the prompt", "Index built in", "A query")


def searches_section(run: RunRecords) -> Html:
    """A table of the ways, one of the sizes of passages, and what was not tried; empty without a corpus."""
    ways = [w for w in run.decision.searches if w.stage == "way"]
    sizes = [w for w in run.decision.searches if w.stage == "size"]
    parts = [_table(ways, _about(ways), "Ways to find passages")] if ways else []
    if sizes:
        parts.append(_table(sizes, "The same for passages of other sizes, by one quick search.", "Sizes of passages"))
    parts += [items(run.decision.searches_not_tried)] if run.decision.searches_not_tried else []
    return section("How passages are found", *parts)


def _about(ways: list[SearchWay]) -> str:
    known = f"These passages are {ways[0].known}. " if ways[0].known else ""
    return (
        f"On {ways[0].n:,} train questions of which a passage that holds the answer is known, before any answer was "
        "asked for: how often such a passage comes first, or is among the first 5; how well it ranks; and how often a "
        "prompt of the usual length shows one. With 95 % intervals. "
        f"{known}The best few were told apart by answers on dev. An "
        "index takes less time where another way, or an earlier run, has made a part of it."
    )


def _table(ways: list[SearchWay], caption: str, label: str) -> Html:
    rows = [
        row(
            joined([way.way, element("span", "chosen", class_="tag")], " ") if way.chosen else way.way,
            *(scored(PERCENT, share) for share in (way.recall_1, way.recall_5)),
            *(scored(_MEAN, mean) for mean in (way.ndcg, way.mrr)),
            scored(PERCENT, way.shown),
            num(f"{way.build_s:,.1f} s"),
            num(f"{way.query_ms:,.1f} ms"),
            class_="chosen" if way.chosen else "",
        )
        for way in ways
    ]
    return table(caption, _HEADER, rows, label=label, right=_HEADER[6:])

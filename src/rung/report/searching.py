"""The report's section about searched words: proposals of instructions with their scores, as differences, and rules.

Everything here was learnt from train: no row of dev or test is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from rung.report.markup import Html, element, items, joined, num, row, section, short, table, wide
from rung.report.reading import Record, RunRecords
from rung.teaching.rules import rules_log
from rung.teaching.search_log import search_in_words, search_log

_PIECES = re.compile(r"\s+|\w+|[^\w\s]")


def searched_section(run: RunRecords) -> Html:
    """Of every solution whose words were searched, also of those that did not prove their gain on dev."""
    folders = sorted(path for path in (run.folder / "solutions").glob("*") if path.is_dir())
    parts = [_searched(run, path.name, log) for path in folders if (log := search_log(path))]
    parts += [_stated(path.name, log) for path in folders if (log := rules_log(path))]
    note = "What follows was learnt, and scored, on train examples alone; the scores on dev and test stand above."
    return section("How the words were found", element("p", note, class_="note") if parts else "", *parts)


def difference(before: str, after: str) -> Html:
    """The second text, with what is new in it and what is gone marked word by word."""
    old, new = _PIECES.findall(before), _PIECES.findall(after)
    parts: list[str] = []
    for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            parts.append("".join(new[c:d]))
            continue
        parts += [element("del", "".join(old[a:b]))] if b > a else []
        parts += [element("ins", "".join(new[c:d]))] if d > c else []
    return element("pre", joined(parts))


def _searched(run: RunRecords, name: str, log: Sequence[Record]) -> Html:
    by_number = {r["number"]: r for r in log}
    kept = next((r for r in log if r["kept"]), log[0])
    parts: list[str] = [element("h3", f"The search of {name}")]
    if said := search_in_words(log):
        parts.append(element("p", f"{said}."))
    if kept["instruction"] != log[0]["instruction"]:
        parts += [element("p", "From the instruction it started with to the one that is kept:")]
        parts.append(difference(log[0]["instruction"], kept["instruction"]))
    header = ("Number", "From", "What is new", "On a few, before", "After", "On the others", "What became of it")
    rows = [
        row(
            str(r["number"]),
            "–" if r["parent"] is None else str(r["parent"]),
            short(
                "–" if r["changed"] is None else f"demos: {r['demos']}" if r["changed"] == "demos" else "instruction"
            ),
            *(num(_score(run, r["minibatch"], key)) for key in ("before", "after")),
            num(_score(run, r["val"], "score")),
            wide(_outcome(r)),
        )
        for r in log
    ]
    parts.append(table(f"What {name} tried, in order.", header, rows, right=header[3:6]))
    for r in log[1:]:
        if r["changed"] == "instruction" and r["instruction"]:
            summary = element("summary", f"Instruction {r['number']}, from {r['parent']}")
            old = by_number[r["parent"]]["instruction"]
            parts.append(element("details", summary, difference(old, r["instruction"])))
    return joined(parts)


def _score(run: RunRecords, part: Record | None, key: str) -> str:
    return "–" if part is None or part[key] is None else run.scale.value(part[key], part["n"])


def _outcome(r: Record) -> str:
    if r["number"] == 0:
        return "the start" + ("; kept" if r["kept"] else "")
    if r["refused"] is not None:
        return f"not tried: {r['refused']}"
    if r["kept"]:
        return "kept"
    if not r["accepted"]:
        return "no better on the examples that it was written from"
    return f"left {r['val']['left']}" if r["val"]["left"] else "compared"


def _stated(name: str, log: Sequence[Record]) -> Html:
    parts: list[str] = [element("h3", f"The house rules of {name}")]
    for r in log:
        title = f"Draft {r['number']}" + (" (kept)" if r["kept"] else f": {r['refused']}" if r["refused"] else "")
        if r["kept"]:
            parts += [element("p", f"{title}:"), items(r["rules"])]
        else:
            parts.append(element("details", element("summary", title), items(r["rules"]) or element("p", "No rules.")))
    return joined(parts)

"""The plan screen: what is going to be done and spent, and what the data can show.

Knows plan.json and task.json, of this version and of earlier ones. Decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision.words import listed
from rung.records import read_json, read_lines
from rung.report.background import UNITS, sizes
from rung.report.checks import screen_lines
from rung.report.lines import Line, Screen, clean, columns, cut, styled, width_of, wrapped
from rung.report.reading import Record, models_in_words, models_of, scale_of
from rung.report.words import both_ends, count, dollars, duration, thousands

PLAN_LINES = 25
"""The plan is laid out for so many lines. Only steps that take a noticeable part of it need more."""

_TABLE_LINES = 9  # below the header, with what is skipped
_LEAST_TABLE = 4
_NOTICEABLE = 0.02  # of the whole plan's time or dollars
_EXPERIMENT = "experiment"
_SHORTEST_NAME = 12


def plan_screen(folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any], task: Mapping[str, Any]) -> Screen:
    """What is going to be done and spent, and what the data can show.

    At most PLAN_LINES lines, unless the steps of one model that take a noticeable part need more: none of them is
    hidden.
    """
    return Screen(lambda width: _plan_lines(folder, plan, checks, task, width))


def _plan_lines(folder: Path, plan: Record, checks: Record, task: Record, width: int) -> list[Line]:
    detectable, scale = plan.get("minimum_detectable_difference", {}), scale_of(task)
    name, metric, models = str(task.get("name", folder.name)), str(task.get("metric", "")), models_in_words(task)
    about = f"{metric}, {models}" if len(models_of(task)) > 1 else f"{models}, {metric}"
    lines: list[Line] = [(cut(f"{name}: {about}", width), "bold")]
    lines += wrapped(f"Examples: {sizes(plan)} ({_test(folder)}).", width, 3)
    if "test" in detectable:
        gap = scale.detectable(detectable["test"], plan.get("comparisons"))
        lines += wrapped(f"The smallest difference the test can show (80 % power): {gap}.", width, 2)
    lines.append(("", ""))
    steps = list(plan.get("steps", ()))
    skipped = _skipped(steps, width)
    total = wrapped(" ".join([_total(plan, task), *_judging(plan), *_done_before(folder)]), width, 6)
    checked = screen_lines(checks, task, width)
    most = max(_LEAST_TABLE, min(_TABLE_LINES, PLAN_LINES - len(lines) - len(total) - len(checked) - 2))
    made = [s for s in steps if s["applies"]]
    tried = [s for s in plan.get("experiments", ()) if s["applies"]]
    names = list(dict.fromkeys(_model(s) for s in steps if _model(s)))
    if len(names) > 1:
        table, rows = _several(names, made, tried, most - sum(len(one.lines) for one in skipped), width)
    else:
        table, rows = columns(*_steps(made, tried), width), [[s] for s in (*made, *tried)]
    lines.append((table[0], "dim"))
    lines += _table_lines(table[1:], rows, skipped, most, width, at_least_noticeable=len(names) < 2)
    return [*lines, ("", ""), *total, *checked]


def _test(folder: Path) -> str:
    """That the test is sealed; of a run that had opened it, when and for what."""
    reads = read_lines(folder / "test_reads.jsonl")
    if not reads:
        return "the test stays sealed until the end"
    last = reads[-1]
    when, what = str(last.get("time", ""))[:10] or "an unknown day", ", ".join(map(str, last.get("solutions", ())))
    times = len({r.get("read") for r in reads})
    how = "was opened" if times == 1 else f"was opened {times} times, last"
    return f"the test {how} on {when}{f' for {what}' if what else ''}; now it stays shut until the end"


def _total(plan: Record, task: Record) -> str:
    """What it takes in all, each figure beside the limit that the user set for it."""
    budget = {key: value for key, value in (task.get("budget") or {}).items() if value is not None}
    spent = {"minutes": f"{plan.get('seconds', 0) / 60:.1f} min"}
    if "calls" in budget:
        spent["calls"] = f"{plan['calls']:,} calls" if plan.get("calls") else ""
    if plan.get("usd") or "usd" in budget:
        spent["usd"] = f"{dollars(plan.get('usd') or 0.0)} USD"
    parts = [
        said + (f" of a budget of {budget[key]:g} {UNITS[key]}" if key in budget else "")
        for key, said in spent.items()
        if said
    ]
    said = f"In all about {listed(parts)}{_start(plan, budget)}."
    wanted = {"minutes": plan.get("seconds", 0) / 60, "calls": plan.get("calls") or 0, "usd": plan.get("usd") or 0.0}
    if any(wanted[key] > budget[key] for key in wanted if key in budget):
        said += " That is more than the budget: what is dearest comes last and may be left out; the verdict says so."
    return said


def _start(plan: Record, budget: Record) -> str:
    """The seconds before the clock of the budget starts, where a model has to be started for long."""
    if not (seconds := plan.get("start_s")):
        return ""
    uncounted = ", which the budget does not count" if "minutes" in budget else ""
    return f", and {seconds / 60:.1f} min for the start of vLLM{uncounted}"


def _judging(plan: Record) -> list[str]:
    """What the judge takes for each answer, where there is one: the figures above hold it."""
    share = plan.get("judge")
    if not share:
        return []
    calls = count(share["calls"], "call")
    usd = f", about {dollars(share['usd'])} USD" if share.get("usd") else ""
    return [f"In it, each answer that is scored costs {calls} of the judge{usd}."]


def _done_before(folder: Path) -> list[str]:
    """What earlier commands on the run did of the plan, where there were any."""
    built = dict.fromkeys(str(e["solution"]) for e in runs.standing_events(folder) if e["event"] == "built")
    seconds = (read_json(folder / "clock.json") or {}).get("seconds")
    if not built:
        return []
    spent = f"took {duration(float(seconds))} and " if seconds else ""
    return [f"This is the plan of the whole run; earlier commands {spent}built {', '.join(built)}."]


# ---- tables ---------------------------------------------------------------------------------

Table = tuple[list[Sequence[str]], str]
"""Rows, the header first, and how each column is aligned: l or r."""


def _model(step: Record) -> str:
    return str(step.get("model") or "")


def _kind(step: Record) -> str:
    return str(step.get("kind") or step["name"])


def _priced(steps: Sequence[Record]) -> bool:
    return any(s.get("usd") for s in steps)


def _sums(steps: Sequence[Record], priced: bool) -> list[str]:
    calls, tokens, seconds, usd = (sum(s.get(key) or 0 for s in steps) for key in ("calls", "tokens", "seconds", "usd"))
    return [
        f"{calls:,}",
        thousands(tokens),
        f"{seconds / 60:.1f} min",
        *([dollars(usd) if usd else "–"] if priced else []),
    ]


def _steps(made: Sequence[Record], tried: Sequence[Record]) -> Table:
    """A line a step, for one model."""
    priced = _priced([*made, *tried])
    header = ["strategy", "family", "calls", "tokens", "about", *(["USD"] if priced else [])]
    rows = [[s["name"], s["family"], *_sums([s], priced)] for s in made]
    rows += [[s["name"], _EXPERIMENT, *_sums([s], priced)] for s in tried]
    return [header, *rows], "llrrr" + "r" * priced


def _several(
    names: Sequence[str], made: Sequence[Record], tried: Sequence[Record], room: int, width: int
) -> tuple[list[str], list[list[Record]]]:
    """Strategies by models, as detailed as fits into so many lines below its header; else a line a model.

    Also the steps of each line below the header; none of a table of strategies by models, which fits whole.
    """
    together = [{**s, "kind": "experiments"} for s in tried]
    tables = [_matrix(names, made, tried), _matrix(names, made, together), _matrix(names, made, together, tokens=False)]
    for table in tables:
        if len(table[0]) <= room + 1 and width_of(table[0]) <= width:
            return columns(*table, width), []
    own = [[s for s in (*made, *tried) if _model(s) == name] for name in names]
    return columns(*_a_line_each(names, made, tried, width), width), own


def _matrix(names: Sequence[str], made: Sequence[Record], tried: Sequence[Record], *, tokens: bool = True) -> Table:
    """A line a strategy, a column a model: dollars where the model has a price, else minutes. The last lines add up."""
    steps = [*made, *tried]
    own = {m: [s for s in steps if _model(s) == m] for m in names}

    def cell(model: str, some: Sequence[Record]) -> str:
        if not some:
            return "–"
        if _priced(own[model]):
            return f"{dollars(sum(s.get('usd') or 0 for s in some))} USD"
        return f"{sum(s['seconds'] for s in some) / 60:.1f} min"

    rows: list[Sequence[str]] = [["strategy", *names]]
    rows += [
        [kind, *(cell(m, [s for s in own[m] if _kind(s) == kind]) for m in names)]
        for kind in dict.fromkeys(map(_kind, steps))
    ]
    rows.append(["together", *(cell(m, own[m]) for m in names)])
    if tokens:
        rows.append(["tokens", *(thousands(sum(s["tokens"] for s in own[m])) for m in names)])
    return rows, "l" + "r" * len(names)


def _a_line_each(names: Sequence[str], made: Sequence[Record], tried: Sequence[Record], width: int) -> Table:
    """Long names give way to the numbers."""
    priced = _priced([*made, *tried])
    header = ["model", "strategies", "calls", "tokens", "about", *(["USD"] if priced else [])]
    rows = []
    for name in names:
        own = [s for s in (*made, *tried) if _model(s) == name]
        number = len([s for s in made if _model(s) == name])
        rows.append([name, f"{number:,}", *_sums(own, priced)])
    room = max(map(len, names)) - max(0, width_of([header, *rows]) - width)
    rows = [[both_ends(name, max(_SHORTEST_NAME, room)), *figures] for name, *figures in rows]
    return [header, *rows], "lrrrr" + "r" * priced


# ---- what is shown of a table -------------------------------------------------


def _table_lines(
    table: Sequence[str],
    rows: Sequence[Sequence[Record]],
    skipped: Sequence[_Skipped],
    most: int,
    width: int,
    *,
    at_least_noticeable: bool,
) -> list[Line]:
    """The table in so many lines, the largest of its rows in their order, then what is skipped; the rest is summed up.

    rows: the steps of each line of the table; none where the table fits whole. at_least_noticeable: rows that take a
    noticeable part of the whole are shown however many there are.
    """
    places = list(range(len(table)))
    if rows and len(table) + sum(len(one.lines) for one in skipped) > most:
        shares = _shares(rows)
        noticeable = sum(share >= _NOTICEABLE for share in shares) if at_least_noticeable else 0
        number = len(table) if len(table) < most else max(most - 1, noticeable)
        places = sorted(sorted(places, key=lambda i: -shares[i])[:number])
    lines: list[Line] = [(table[i], "") for i in places]
    named = 0
    for place, one in enumerate(skipped):
        if len(lines) + len(one.lines) + (place + 1 < len(skipped)) > most or len(places) < len(table):
            break
        lines, named = [*lines, *one.lines], place + 1
    left = [s for i, steps in enumerate(rows) if i not in places for s in steps]
    more = _more(len(table) - len(places), left, sum(one.steps for one in skipped[named:]))
    return [*lines, *styled(wrapped(more, width), "dim")]


def _shares(rows: Sequence[Sequence[Record]]) -> list[float]:
    """Of each row its part of the time or of the dollars of all, whichever is larger."""
    found = [0.0] * len(rows)
    for key in ("seconds", "usd"):
        own = [sum(s.get(key) or 0.0 for s in steps) for steps in rows]
        if whole := sum(own):
            found = [max(share, value / whole) for share, value in zip(found, own, strict=True)]
    return found


def _more(rows: int, steps: Sequence[Record], skipped: int) -> str:
    """and 8 more, 0.4 min, and 3 skipped, in plan.json. Empty where nothing is left out."""
    if not rows:
        return f"and {skipped} skipped, in plan.json" if skipped else ""
    seconds, usd = (sum(s.get(key) or 0.0 for s in steps) for key in ("seconds", "usd"))
    parts = [f"and {rows} more", f"{seconds / 60:.1f} min"]
    parts += [f"{dollars(usd)} USD"] if usd else []
    parts += [f"and {skipped} skipped"] if skipped else []
    return ", ".join([*parts, "in plan.json"])


# ---- what is skipped ----------------------------------------------------------


@dataclass(frozen=True)
class _Skipped:
    """What is skipped for one reason: the number of steps, and how it is said."""

    steps: int
    lines: list[Line]


def _skipped(steps: Sequence[Record], width: int) -> list[_Skipped]:
    """A line or more for each reason, with all that is skipped for it; what no model can do is named once.

    Of several models, estimates that stand in a reason are left out: they differ from model to model.
    """
    names = max([len(s["name"]) for s in steps], default=0)
    models = {_model(s) for s in steps}
    by_reason: dict[str, list[Record]] = {}
    for s in steps:
        if not s["applies"]:
            why = str(s["why"]) if len(models) < 2 else re.sub(r", about [\d.,]+ (min|h)\b", "", str(s["why"]))
            by_reason.setdefault(why, []).append(s)
    several = len(models) > 1
    return [
        _Skipped(
            len(some),
            _skipped_lines(_named(some, models), width, why, 0)
            if several
            else _skipped_lines(", ".join(s["name"] for s in some), width, why, names),
        )
        for why, some in by_reason.items()
    ]


def _named(skipped: Sequence[Record], models: set[str]) -> str:
    """Of several models: rag where no model is left; lora, rag_lora with gpt-5-mini where it is one; else each name."""
    own: dict[str, set[str]] = {}
    for s in skipped:
        own.setdefault(_kind(s), set()).add(_model(s))
    whole = [kind for kind, its in own.items() if its == models]
    rest = [s for s in skipped if _kind(s) not in whole]
    one = {_model(s) for s in rest}
    if len(one) == 1 and len(own) > 1 and not whole:
        return f"{', '.join(own)} with {one.pop()}"
    return ", ".join([*whole, *(s["name"] for s in rest)])


def _skipped_lines(named: str, width: int, why: str, padded: int) -> list[Line]:
    """In one line where it fits, else in at most three."""
    from rich.cells import cell_len

    whole = clean(f"{named:<{padded}}  skipped: {why}")
    lines = [(whole, "")] if cell_len(whole) <= width else wrapped(f"skipped: {why}: {named}", width, 3)
    return styled(lines, "dim")

"""The report's sections about what the verdict rests on: what the data can show, the data checks, the run itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rung.decision.figures import compared_pairs
from rung.report.checks import by_kind, counted
from rung.report.markup import Html, element, facts, num, row, section, table, wide
from rung.report.reading import UNKNOWN_HOST, NamedModel, Record, RunRecords, models_in_words
from rung.report.spending import spent_time, spent_usd
from rung.report.words import count

UNITS = {"minutes": "min", "calls": "calls", "usd": "USD"}
"""Of a budget's limits."""

_MOST_FINDINGS = 40
_MOST_HASHES = 5  # that are open
_KINDS = ("Kind", "Severity", "Number", "What to do")
_FINDINGS = ("Row", "Kind", "Severity", "Finding")


def data_section(run: RunRecords) -> Html:
    """Sizes, the smallest differences that can be shown, and each opening of the test."""
    scale = run.scale
    opened = list(map(_opened, _readings(run)))
    dev = run.plan.get("minimum_detectable_difference", {}).get("dev")
    planned = run.plan.get("comparisons")
    times = count(run.decision.test_reads, "time") if run.decision.test_reads else "never: it is still sealed"
    return section(
        "What the data can show",
        facts(
            {
                "Examples": sizes(run.plan),
                "Smallest difference, test": _shown_by_test(run),
                "Smallest difference, dev": "" if dev is None else f"{scale.detectable(dev, planned)}, at 80 % power",
                "Floor": f"{run.floor}, the best score of a baseline that looks at no input",
                "Margin": f"{scale.gap(run.decision.margin)}: a smaller difference does not matter",
                "Test opened": times + (f" ({'; '.join(opened)})" if opened else ""),
            }
        ),
    )


def _readings(run: RunRecords) -> list[list[Record]]:
    """The openings of the test, those of one logical reading together."""
    found: dict[object, list[Record]] = {}
    for record in run.test_reads:
        found.setdefault(record.get("read"), []).append(record)
    return list(found.values())


def _opened(reading: Sequence[Record]) -> str:
    """When and for what; and when it was opened again for the same solutions, which nothing new is compared by."""
    first, *more = reading
    again = f"; again for the same at {', '.join(_minute(str(r.get('time', ''))) for r in more)}" if more else ""
    solutions = ", ".join(map(str, first.get("solutions", ())))
    return f"{_minute(str(first.get('time', '')))}, for {solutions}: {first.get('why', '')}{again}"


def _shown_by_test(run: RunRecords) -> str:
    """What the test shows with the pairs that were compared on it; as planned, where it is sealed."""
    scale, found = run.scale, run.decision.minimum_detectable_difference
    pairs = [c for c in run.decision.comparisons if c.set == "test" and not {c.a, c.b} & run.baselines]
    if run.unfinished or not pairs:
        return f"{scale.detectable(found, run.plan.get('comparisons') if run.unfinished else 1)}, at 80 % power"
    seen = "" if scale.right_or_wrong else ", by how much their scores vary"
    return f"{scale.gap(found)} between two candidates where {compared_pairs(len(pairs))}{seen}, at 80 % power"


def sizes(plan: Record) -> str:
    """The numbers of examples, and what was capped: train 3,500, dev 1,000 of 2,500; the rest trains."""
    capped = plan.get("capped") or {}
    said = ", ".join(
        f"{name} {n:,}" + (f" of {capped[name]:,}" if name in capped else "")
        for name, n in plan.get("sizes", {}).items()
    )
    return said + ("; the rest trains" if capped else "")


def budget(task: Record) -> str:
    """What the user allowed: 30 min, 1 USD. Empty where no limit was set."""
    allowed = {k: v for k, v in (task.get("budget") or {}).items() if v is not None}
    return ", ".join(f"{v:,g} {UNITS.get(k, k)}" for k, v in allowed.items())


def checks_section(run: RunRecords) -> Html:
    """The findings of the data checks: their kinds, the gravest first, then the rows; folded where there are many."""
    if not run.findings:
        return section("Data checks", element("p", "The checks have nothing to report."))
    said, kinds = counted(run.findings), by_kind(run.findings)
    told = [
        row(
            one.kind.title,
            one.severity,
            num(f"{one.count:,}"),
            wide(one.kind.todo.replace("`", "")),
            labels=_KINDS[1:],
        )
        for one in kinds
    ]
    summary = table(f"{said}.", _KINDS, told, label="Kinds of findings", right=("Number",), class_="stacked")
    findings = [(one, f) for one in kinds for f in one.findings]
    rows = [
        row(
            f.get("row") or "all examples",
            one.kind.title,
            f["severity"],
            wide(f["message"]),
            labels=_FINDINGS[1:],
        )
        for one, f in findings[:_MOST_FINDINGS]
    ]
    shown = f"The first {len(rows)} are shown; all are in checks.json." if len(findings) > len(rows) else "All of them."
    content = table(shown, _FINDINGS, rows, label="Data checks", class_="stacked")
    if len(rows) > 8:
        content = element("details", element("summary", f"{said}: show the rows"), content)
    return section("Data checks", summary, content)


def run_section(run: RunRecords) -> Html:
    """When, where and with what it ran."""
    task = run.task
    times = {e["event"]: str(e["time"]) for e in reversed(run.events) if "time" in e}
    starts = sum(e["event"] == "started" for e in run.events)
    again = f", continued {count(starts - 1, 'time')}" if starts > 1 else ""
    ended = next((str(e["time"]) for e in reversed(run.events) if e["event"] in ("decided", "unfinished")), "")
    at_once = int(task.get("concurrency") or 1)
    pairs = {
        "Folder": str(run.folder),
        "Task file": str(task.get("path", "")),
        "Begun": _minute(times.get("started", "")) + again,
        "Ended": _minute(ended),
        "Model": " ".join(one for one in (models_in_words(task), str(task.get("model_version") or "")) if one),
        **{role.capitalize(): _helper(model) for role, model in run.helpers.items()},
        "Requests at once": f"{at_once:,}, when the winner serves" if at_once > 1 else "",
        "Seed": str(task.get("seed", "")),
        "Budget": budget(task),
        "Time spent": spent_time(run),
        "Dollars spent": spent_usd(run),
        "Target": "" if task.get("target") is None else run.scale.value(task["target"]),
        "Versions": _named(task.get("versions") or {}),
        "Machine": _named(task.get("machine") or {}),
        "Computed": _computed(run),
        "Run identity": str(task.get("identity", "")),
    }
    taught = {what: own for what, own in (task.get("taught") or {}).items() if isinstance(own, Mapping)}
    by_use = {"": task.get("data") or {}, **taught, "judged": task.get("judged_hashes") or {}}
    hashes = [
        row(f"{name} ({use})" if use else name, element("td", element("code", str(value))))
        for use, own in by_use.items()
        for name, value in own.items()
    ]
    files = table("SHA-256 of the data files.", ("File", "Hash"), hashes) if hashes else ""
    if len(hashes) > _MOST_HASHES:
        files = element("details", element("summary", f"SHA-256 of {len(hashes):,} data files"), files)
    record = json.dumps(task.get("schema"), indent=1, ensure_ascii=False) if task.get("schema") else ""
    schema = (
        element("details", element("summary", "The schema of the answers"), element("pre", record)) if record else ""
    )
    return section("The run", facts(pairs), files, schema)


def _helper(model: NamedModel) -> str:
    """fake-1, at the endpoint api.example.com"""
    where = f", at the endpoint {model.host}" if model.host and model.host != UNKNOWN_HOST else ""
    called = f" ({model.called})" if model.called not in ("", model.name) else ""
    return f"{model.name}{called}{where}"


def _computed(run: RunRecords) -> str:
    """Where and in which ways the models were computed, command by command; empty where that was plainly on a CPU."""
    from rung.models.computing import computing_in_words

    said = []
    for model in run.models:
        known = model.facts.get("computed")
        ways = [computing_in_words(one) for one in known or () if isinstance(one, Mapping)]
        if ways:
            said.append((f"{model.name}: " if run.several else "") + "; in another command ".join(ways))
    return ". ".join(said)


def _named(values: Record) -> str:
    """x 1, y 2; of what is nested, its own names and values."""
    flat = (f"{name} ({_named(v)})" if isinstance(v, Mapping) else f"{name} {v}" for name, v in values.items())
    return ", ".join(flat)


def _minute(time: str) -> str:
    """2026-11-23 18:04 UTC"""
    return f"{time[:10]} {time[11:16]} UTC" if time else ""

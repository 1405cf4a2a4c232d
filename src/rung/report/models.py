"""The report's section about the models: where each ran, what an endpoint served, what went wrong, what was paid.

Knows task.json and models.json. A spec's own text is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from rung.report.markup import Html, element, facts, joined, section
from rung.report.reading import UNKNOWN_HOST, NamedModel, Record, RunRecords
from rung.report.words import count, dollars

_MOST_SERVED = 4
_MODES = {
    "choice": "held to the choices by the server",
    "grammar": "held to a grammar by the server",
    "json_schema": "held to a JSON Schema by the server",
    "json_object": "held to JSON by the server",
    "none": "asked for in words, checked here",
}
"""How an endpoint held answers to labels, a schema or a pattern -> what is written."""

_PRICES = {
    "usd_per_million_in": "USD per million input tokens",
    "usd_per_million_cached": "per million cached ones",
    "usd_per_million_cache_written": "per million written to the cache",
    "usd_per_million_out": "per million output tokens",
    "usd_per_hour": "USD per hour of the machine",
}


def models_section(run: RunRecords) -> Html:
    """Nothing for one model on this machine: the section about the run says enough of it."""
    if not run.several and not any(m.host or m.facts.keys() - {"computed"} for m in run.models):
        return Html("")
    return section("Models", *(joined([element("h3", m.name), facts(_facts(run, m))]) for m in run.models))


def _facts(run: RunRecords, model: NamedModel) -> dict[str, str]:
    f = model.facts
    return {
        "How it ran": _where(run, model),
        "Served model": _counted(f.get("served") or {}),
        "Fingerprint": _counted(f.get("fingerprints") or {}),
        "Form of answers": _counted(f.get("response_format") or {}, _MODES),
        "Price": _price(model),
        "Paid": _paid(f),
        "Answers kept from earlier calls": f"{f['from_cache']:,}" if f.get("from_cache") else "",
        "Faults": _faults(f),
        "Ends": _ends(f.get("shutdown_date")),
    }


def _where(run: RunRecords, model: NamedModel) -> str:
    if model.host:
        where = f"at {'' if model.host == UNKNOWN_HOST else 'the endpoint '}{model.host}"
        where = f"by a server on this machine ({model.host})" if model.local else where
        where += f", {model.facts['server']}" if model.facts.get("server") else ""
        called = f", where it is called {model.called}" if model.called != model.name else ""
        return where + called + ("; in batches" if model.batch else "")
    machine = {**(run.task.get("machine") or {}), **model.facts}
    device = machine.get("device_name") or machine.get("device")
    called = f"from {model.called}" if model.called not in ("", model.name) else ""
    return ", ".join(str(part) for part in ("on this machine", device, machine.get("dtype"), called) if part)


def _counted(values: Mapping[str, int], words: Mapping[str, str] | None = None, unit: str = "answer") -> str:
    """gpt-5-mini-2026-08-07 (1,204 answers), …; the most frequent first. words: what is written for a name."""
    first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    said = [
        f"{(words or {}).get(name, name) or 'not said'} ({count(int(n), unit)})" for name, n in first[:_MOST_SERVED]
    ]
    more = len(first) - len(said)
    return ", ".join(said) + (f", and {more} more" if more > 0 else "")


def _price(model: NamedModel) -> str:
    """Figures, and where they are from: the task, or the dated source that models.json names."""
    found = model.facts.get("price")
    price: Record = model.price or (found if isinstance(found, Mapping) else {})
    said = ", ".join(f"{price[key]:g} {unit}" for key, unit in _PRICES.items() if price.get(key) is not None)
    if not said:
        return "not known" if model.host else ""
    if model.price:
        return f"{said}; as the task gives it"
    source, dated = model.facts.get("price_source"), model.facts.get("price_dated")
    said += (f"; from {source}" if source else "") + (f", as of {dated}" if dated else "")
    return said + (f". {note}" if (note := model.facts.get("price_note")) else "")


def _paid(f: Record) -> str:
    usd, calls, doubtful = f.get("usd"), f.get("calls"), f.get("doubtful_usd") or 0.0
    parts = [f"{dollars(float(usd))} USD"] if usd is not None else []
    said = " for ".join([*parts, count(int(calls), "answer")] if calls else parts)
    if doubtful:
        said += f"; {dollars(float(doubtful))} USD more at most for requests whose replies were lost"
    return said


def _faults(f: Record) -> str:
    """35 failed requests: 429 (31 times), closed (4 times). Where calls were counted and none failed, that is said."""
    faults = {kind: n for kind, n in (f.get("faults") or {}).items() if n}
    if not faults:
        return "no request failed" if "faults" in f else ""
    return f"{count(sum(faults.values()), 'failed request')}: {_counted(faults, unit='time')}"


def _ends(date: str | None) -> str:
    return f"on {date}, as the endpoint says: whatever is built on it stops then" if date else ""

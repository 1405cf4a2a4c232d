"""The report's section about the models: where each ran, what an endpoint served, what went wrong, what was paid.

Knows task.json and models.json. A spec's own text is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rung.report.markup import Html, element, facts, joined, section
from rung.report.reading import NamedModel, Record, RunRecords
from rung.report.words import count, dollars

_MOST_SERVED = 4
_PRICES = {
    "usd_per_million_in": "USD per million input tokens",
    "usd_per_million_cached": "per million cached ones",
    "usd_per_million_out": "per million output tokens",
    "usd_per_hour": "USD per hour of the machine",
}


def models_section(run: RunRecords) -> Html:
    """Nothing for one model on this machine: the section about the run says enough of it."""
    if not run.several and not any(m.host or m.facts for m in run.models):
        return Html("")
    return section("Models", *(joined([element("h3", m.name), facts(_facts(run, m))]) for m in run.models))


def _facts(run: RunRecords, model: NamedModel) -> dict[str, str]:
    f = model.facts
    return {
        "How it ran": _where(run, model),
        "Served model": _counted(f.get("served")),
        "Fingerprint": _counted(f.get("fingerprints")),
        "Form of answers": _form(f.get("response_format")),
        "Price": _price(model),
        "Paid": _paid(f),
        "Answers kept from earlier calls": _number(f.get("from_cache")),
        "Faults": _faults(f),
        "Ends": _ends(f.get("shutdown_date")),
    }


def _where(run: RunRecords, model: NamedModel) -> str:
    if model.host:
        where = f"by a server on this machine ({model.host})" if model.local else f"at the endpoint {model.host}"
        called = f", where it is called {model.called}" if model.called != model.name else ""
        return where + called + ("; in batches" if model.batch else "")
    machine = {**(run.task.get("machine") or {}), **model.facts}
    with_ = [str(machine[key]) for key in ("dtype",) if machine.get(key)]
    on = str(machine.get("device_name") or machine.get("device") or "")
    called = f", from {model.called}" if model.called not in ("", model.name) else ""
    return f"on this machine{f', {on}' if on else ''}{f', {with_[0]}' if with_ else ''}{called}"


def _counted(values: Any) -> str:
    """gpt-5-mini-2026-08-07 (1,204 answers), …; the most frequent first."""
    if not isinstance(values, Mapping):
        return "" if values is None else str(values)
    first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{name or 'not said'} ({count(int(n), 'answer')})" for name, n in first[:_MOST_SERVED]]
    more = len(first) - len(said)
    return ", ".join(said) + (f", and {more} more" if more > 0 else "")


def _form(mode: Any) -> str:
    words = {
        "json_schema": "held to a JSON Schema by the endpoint",
        "json_object": "held to JSON by the endpoint, checked here",
        "none": "asked for in words, checked here, and asked again where it is another",
    }
    modes = list(mode) if isinstance(mode, Mapping | list | tuple) else [mode] if mode else []
    return "; ".join(words.get(str(m), str(m)) for m in modes)


def _price(model: NamedModel) -> str:
    """Figures, and where they are from: the task, or the dated source that models.json names."""
    found = model.facts.get("price")
    price: Record = model.price or (found if isinstance(found, Mapping) else {})
    said = ", ".join(f"{dollars(price[key])} {unit}" for key, unit in _PRICES.items() if price.get(key) is not None)
    if not said:
        return "not known" if model.host else ""
    if model.price:
        return f"{said}; as the task gives it"
    source, dated = model.facts.get("price_source"), model.facts.get("price_dated")
    return said + (f"; from {source}" if source else "") + (f", as of {dated}" if dated else "")


def _paid(f: Record) -> str:
    usd, calls = f.get("usd"), f.get("calls")
    parts = [f"{dollars(float(usd))} USD"] if usd is not None else []
    return " for ".join([*parts, count(int(calls), "call")] if calls else parts)


def _number(n: Any) -> str:
    return f"{int(n):,}" if n else ""


def _faults(f: Record) -> str:
    """429 (31), connection (2); asked again 33 times. Where calls were counted and none failed, that is said."""
    faults = {k: n for k, n in (f.get("faults") or {}).items() if n}
    if not faults:
        return "none" if "faults" in f else ""
    said = ", ".join(f"{kind} ({n:,})" for kind, n in sorted(faults.items(), key=lambda item: -item[1]))
    again = f"; asked again {count(int(f['retries']), 'time')}" if f.get("retries") else ""
    return said + again


def _ends(date: Any) -> str:
    return f"on {date}, as the endpoint says: whatever is built on it stops then" if date else ""

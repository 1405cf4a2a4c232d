"""What a run has spent, and on what. Knows purse.json, clock.json, models.json and the prices of task.json."""

from __future__ import annotations

from rung.report.reading import RunRecords
from rung.report.words import dollars, duration

_LEAST = 0.01  # of what was spent: a smaller rest is rounding


def spent_usd(run: RunRecords) -> str:
    """0.038 USD (0.026 USD on the teacher fake-1, 0.012 USD on the machine). Empty where nothing has a price."""
    tokens, hours = run.spent.get("usd"), _machine_usd(run)
    if tokens is None and hours is None:
        return ""
    total = (tokens or 0.0) + (hours or 0.0)
    parts = {named: usd for named, usd in _by_model(run).items() if usd}
    rest = (tokens or 0.0) - sum(parts.values())
    if rest > _LEAST * total:
        parts["calls of commands that were stopped, at most"] = rest
    if hours:
        parts["the machine"] = hours
    said = ", ".join(f"{dollars(usd)} USD on {named}" for named, usd in parts.items())
    return f"{dollars(total)} USD{f' ({said})' if said else ''}"


def spent_time(run: RunRecords) -> str:
    """17.8 min, over all commands; empty where it was not counted."""
    seconds = run.spent.get("seconds")
    return f"{duration(float(seconds))}, all commands together" if seconds else ""


def _by_model(run: RunRecords) -> dict[str, float]:
    """Dollars for tokens, by what asked for them. One that is compared and helps, too, is counted once."""
    found = {model.name: float(model.facts.get("usd") or 0.0) for model in run.models}
    for role, model in run.helpers.items():
        if model.name in found:
            found[f"{model.name}, also as the {role}"] = found.pop(model.name)
        else:
            found[f"the {role} {model.name}"] = float(model.facts.get("usd") or 0.0)
    return found


def _machine_usd(run: RunRecords) -> float | None:
    """Dollars for the hours of the machine; None where no model names a price of them."""
    prices = [model.price.get("usd_per_hour") for model in (*run.models, *run.helpers.values())]
    hourly = max((float(price) for price in prices if price), default=None)
    return None if hourly is None else hourly * float(run.spent.get("seconds") or 0.0) / 3600

"""What the record of a run keeps of its models, and what a reader of the verdict must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rung.ladder.state import WholeRun
from rung.records import write_json

_COUNTS = ("calls", "from_cache", "usd", "doubtful_usd")
_COUNTS_BY_NAME = ("answered_by", "served", "fingerprints", "response_format", "faults")


def record_models(run: WholeRun) -> None:
    """Writes models.json: what each model says of itself, counts summed over all commands on the run."""
    found = facts_of(run)
    if found:
        write_json(run.files.models, found)


def facts_of(run: WholeRun) -> dict[str, dict[str, Any]]:
    """Name of a model -> its facts, over all commands; models that say nothing are left out.

    The teacher and the judge stand under "teacher" and "judge", where no model that is compared is called so.
    """
    compared = {state.name: state.model for state in run.states}
    helpers = {role: m for role, m in run.first.helpers.items() if role not in compared and m not in compared.values()}
    now = {name: model.facts() for name, model in {**compared, **helpers}.items()}
    summed = {name: _summed(run.recorded.get(name, {}), facts) for name, facts in now.items() if facts}
    return {**run.recorded, **summed}


def _summed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of now, with the counts of before added."""
    found = dict(now)
    for key in _COUNTS:
        if before.get(key) is not None or now.get(key) is not None:
            found[key] = (before.get(key) or 0) + (now.get(key) or 0)
    for key in _COUNTS_BY_NAME:
        counts: dict[str, Any] = dict(before.get(key) or {})
        for name, count in (now.get(key) or {}).items():
            counts[name] = counts.get(name, 0) + count if isinstance(count, int) else count
        if key in now or counts:
            found[key] = counts
    if "computed" in before or "computed" in now:  # of each command, what another did not compute with
        earlier = list(before.get("computed") or ())
        found["computed"] = earlier + [one for one in now.get("computed") or () if one not in earlier]
    return found


def model_notes(run: WholeRun) -> list[str]:
    """Whole sentences: a model that vLLM answers with, one that its provider switches off, and one that was exchanged
    while the run went on."""
    notes = []
    for name, facts in facts_of(run).items():
        served = [one for one in facts.get("served") or {} if one]
        if name not in run.names:
            if name in run.first.helpers and len(served) > 1:
                notes.append(
                    f"The {name} was answered by more than one model in this run: {', '.join(served)}. What it said is "
                    "a mix of theirs."
                )
            continue
        if facts.get("engine") == "vllm":
            here = (facts.get("answered_by") or {}).get("local", 0)
            notes.append(
                f"Answers of {name} came from vLLM {facts['vllm']}. rung's own engine, and vLLM in other batches, may "
                "answer a few inputs otherwise, where rounding decides."
                + (f" {here:,} answers came from rung's own engine, because vLLM did not take them." if here else "")
            )
        if ends := facts.get("shutdown_date"):
            notes.append(f"{name} ends: its provider switches it off on {ends}. What is shipped with it ends then too.")
        if len(served) > 1:
            notes.append(
                f"{name} was answered by more than one model in this run: {', '.join(served)}. Its scores are a mix of "
                "theirs."
            )
    return notes

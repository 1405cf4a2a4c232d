"""What the record of a run keeps of its models, and what a reader of the verdict must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rung.ladder.state import WholeRun
from rung.records import write_json
from rung.resume import record_of


def record_models(run: WholeRun) -> None:
    """Writes models.json: what each model says of itself, with what earlier commands have recorded of it."""
    known = record_of(run.files.models)
    found = {state.name: state.model.facts() for state in run.states}
    facts = {name: _with_earlier(own, known.get(name, {})) for name, own in found.items() if own}
    if facts:
        write_json(run.files.models, {**known, **facts})


def _with_earlier(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {**before, **now}


def model_notes(run: WholeRun) -> list[str]:
    """Whole sentences: a model that ends, and one that was exchanged while the run went on."""
    return []

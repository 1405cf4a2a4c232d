"""vLLM behind a server: a local base is answered by a vLLM of its own; an endpoint needs no engine, and is proxied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rung.models.places import is_endpoint
from rung.models.streaming import Answerer


def open_vllm(
    spec: str,
    name: str,
    adapters: Sequence[Path] = (),
    *,
    say: Callable[[str], None] = lambda _: None,
    python: str | None = None,
    slots: int = 8,
    most_waiting: int = 256,
) -> Answerer:
    """Who answers with a base: as `models.vllm.answerer.start_vllm`, and an endpoint by itself. Raises ModelError."""
    if is_endpoint(spec):
        from rung.models import open_model
        from rung.serving.opening import answerer_for

        return answerer_for(open_model(spec, say=say), most_waiting=most_waiting)
    from rung.models.vllm.answerer import start_vllm

    return start_vllm(spec, name, adapters, say=say, python=python, slots=slots, most_waiting=most_waiting)

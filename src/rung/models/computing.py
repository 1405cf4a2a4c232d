"""What a local model was computed with, for the record of a run and for its readers: device, ways and cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rung.engine.engine import Engine

_NAMES = {"together": "one training on several cards"}
"""Of what is given up, where the name of a way does not say it."""


def computed_with(engine: Engine, cards: int) -> list[dict[str, Any]]:
    """What computed in this process, as models.json holds it; empty for one process on the CPU in the plain way.

    device and its name. ways: those that are taken still. given_up: way -> why. cards: that trained, or 1.
    """
    from rung.engine.devices import device_name

    ways, device = engine.ways, engine.device
    if device.type == "cpu" and cards == 1 and not ways.taken and not ways.given_up:
        return []
    return [
        {
            "device": device.type,
            "device_name": device_name(device),
            "ways": list(ways.taken),
            "given_up": dict(ways.given_up),
            "cards": cards,
        }
    ]


def computes_with(model: object) -> dict[str, Any] | None:
    """dtype, device, device_name, ways and given_up of a model that is computed in this process, as they are now; None
    for others."""
    engine: Engine | None = getattr(model, "engine", None)
    if engine is None:
        return None
    from rung.engine.devices import device_name

    return {
        "dtype": str(engine.dtype).removeprefix("torch."),
        "device": engine.device.type,
        "device_name": device_name(engine.device),
        "ways": list(engine.ways.taken),
        "given_up": dict(engine.ways.given_up),
    }


def ways_in_words(taken: Sequence[str], given_up: Mapping[str, str]) -> str:
    """fused, static; given up: static training (no kernel for it)"""
    said = [f"{_NAMES.get(way, way)} ({why})" for way, why in given_up.items()]
    return (", ".join(taken) or "plain") + (f"; given up: {', '.join(said)}" if said else "")


def computing_in_words(record: Mapping[str, Any]) -> str:
    """Of one that `computed_with` made: on NVIDIA H100, 2 cards; ways: fused, static; given up: …"""
    where = str(record.get("device_name") or record.get("device") or "unknown")
    cards = int(record.get("cards") or 1)
    beside = f", {cards} {'processes' if record.get('device') == 'cpu' else 'cards'}" if cards > 1 else ""
    return f"on {where}{beside}; ways: {ways_in_words(record.get('ways') or (), record.get('given_up') or {})}"

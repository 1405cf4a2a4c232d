"""What the check at loading found, as a record: a network that was checked before is not checked again.

The caller keeps the record under a name that changes with everything that decides the result: the network's files, its
type and device, the libraries, and the code of this room (`code_version`).
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from rung.engine import attention
from rung.engine.engine import Engine
from rung.engine.layers import decoder_layers, fused_layers, is_fused, unfuse
from rung.engine.padded_engine import PaddedEngine
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ways_of
from rung.errors import DamagedRecord
from rung.records import read_json, write_json

_FLAGS = ("pads_left", "pads_right", "keeps", "caches", "batches")


@cache
def code_version() -> str:
    """A hash of the code of this room: another engine is checked anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def keep(record: Path | None, engine: Engine, *, adapters: bool = False) -> None:
    """Writes what the check found. record: None keeps nothing. adapters: whether they were checked too."""
    if record is None:
        return
    if isinstance(engine, PaddedEngine):
        content: dict[str, Any] = {
            "path": "padded",
            "reason": engine.reason,
            "attention": engine.network.config.get_text_config(decoder=True)._attn_implementation,
            "vocabulary": engine.vocabulary,
            **{name: getattr(engine, name) for name in _FLAGS},
        }
    else:
        content = {
            "path": "tree",
            "fused": [is_fused(layer) for layer in decoder_layers(engine.network)],
            "head_alone": engine.head_alone,
            "adapters": adapters,
            "plain_adapters": engine.adapters.plain,
            "reads_adapters": engine.adapters.reads,
            "tried_fused": engine.ways.fused or "fused" in engine.ways.given_up,
            "given_up": engine.ways.given_up.get("fused", ""),
        }
    with contextlib.suppress(OSError):  # without a cache it is checked again next time
        write_json(record, content)


def kept_engine(network: Any, name: str, record: Path | None) -> tuple[Engine | None, bool]:
    """The engine that an earlier check found, and whether its adapters were checked too; None where there is none.

    network: with eager attention, as for the check.
    """
    try:
        content = read_json(record) if record is not None else None
        if content is None:
            return None, False
        if content["path"] == "padded":
            return _padded(network, name, content), True
        return _tree(network, name, content), bool(content["adapters"])
    except (OSError, DamagedRecord, ValueError, LookupError, TypeError):  # a damaged record is none
        return None, False


def _padded(network: Any, name: str, content: dict[str, Any]) -> PaddedEngine:
    given = {flag: bool(content[flag]) for flag in _FLAGS}
    reason, vocabulary, kind = str(content["reason"]), int(content["vocabulary"]), str(content["attention"])
    network.set_attn_implementation(kind)
    engine = PaddedEngine(network, name)
    engine.reason, engine.vocabulary = reason, vocabulary
    for flag, value in given.items():
        setattr(engine, flag, value)
    return engine


def _tree(network: Any, name: str, content: dict[str, Any]) -> TreeEngine:
    fused, alone, plain = list(content["fused"]), bool(content["head_alone"]), bool(content["plain_adapters"])
    reads = bool(content["reads_adapters"])
    tried, given_up = bool(content["tried_fused"]), str(content["given_up"])
    layers = decoder_layers(network)
    if len(fused) != len(layers):
        raise ValueError("the record is of another network")
    if ways_of(network.device).fused and not tried:
        raise ValueError("attention in one kernel was not tried")
    network.set_attn_implementation(attention.NAME)
    engine = TreeEngine(network, name)
    for layer, was_fused in zip(layers, fused, strict=True):
        if not was_fused:
            unfuse(layer)
    engine.head_alone, engine.adapters.plain, engine.adapters.reads = alone, plain, reads
    if given_up:
        engine.ways.give_up("fused", given_up)
    engine.fused = (len(fused_layers(network)), len(layers))
    return engine

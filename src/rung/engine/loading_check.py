"""The check at loading: which path a network takes. On either it computes what transformers computes with it.

The tree path is tried where a network's structure allows it, and compared with transformers' own forward pass in
float32. What differs, or fails in whatever way, takes the padded path. Nothing that transformers computes is refused.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rung.engine import attention
from rung.engine.engine import Engine
from rung.engine.kept_check import keep, kept_engine
from rung.engine.layers import decoder_layers, fuse_layers, fused_layers, unfuse, unfuse_layers
from rung.engine.memory import free_bytes, give_back
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.padded_check import checked_padded_engine
from rung.engine.padded_engine import PaddedEngine
from rung.engine.precision import extra_bytes
from rung.engine.probe import (
    NEGLIGIBLE,
    Reference,
    has_windows,
    logits_of,
    probe_of,
    reference_of,
    relative_error,
    shrunk_windows,
)
from rung.engine.tree_check import Unfit, check_adapter, check_rounding, check_tree
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ways_of
from rung.errors import ModelError, first_line

_STATES = ("linear", "conv", "mamba", "recurrent", "rwkv", "ssm", "delta", "hybrid")
_UNKNOWN = "its layers are of a kind that the fast path does not know"


class _Unchecked(Exception):
    """Nothing can be checked. The message says why, as a clause."""


def checked_engine(
    network: Any, name: str, *, say: Callable[[str], None] = lambda _: None, record: Path | None = None
) -> Engine:
    """An engine that computes what transformers computes, to rounding; a TreeEngine where it can be one.

    network: with eager attention. name: the model's, for messages. say: is told when a model takes the slower path.
    record: a file for what the check finds, as in `kept_check`; where it is there, nothing is checked again.
    Layers whose fused form computes something else are left unfused, and where attention in one kernel does, it is
    given up. Raises ModelError where transformers' own forward pass fails, and for ways that do not exist. A network
    that runs beside what the check needs, and no more, is checked twice at most, then not at all.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.attention)
    network.eval().requires_grad_(False)
    ways_of(next(network.parameters()).device)  # a way that does not exist is the user's mistake, not the network's
    engine, adapters_checked = kept_engine(network, name, record)
    if engine is None:
        try:
            engine = _newly_checked(network, name)
            keep(record, engine)
        except _Unchecked as error:
            engine = PaddedEngine(network, name)  # it needs no check: it pads nothing
            engine.reason = str(error)
    if isinstance(engine, TreeEngine):
        if not adapters_checked:
            engine.adapters.on_first_use = partial(_check_adapters, engine, record)
    else:
        say(f"{name} runs as transformers computes it, slower: {engine.reason}.")
    return engine


def _newly_checked(network: Any, name: str) -> Engine:
    """Raises _Unchecked where memory does not suffice, and where the network computes in its own type only."""
    for _ in range(2 if _has_room(network) else 0):  # a shortage may pass, where others share the device
        try:
            return _checked_engine(network, name)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        unfuse_layers(network)
        network.set_attn_implementation("eager")
        gc.collect()
        give_back(next(network.parameters()).device)
    raise _Unchecked("there is too little memory to check how else it may be computed")


def _check_adapters(engine: TreeEngine, record: Path | None) -> None:
    counted = engine.computed_tokens
    try:
        checked = check_adapter(engine)
    finally:
        engine.computed_tokens = counted  # the check is no part of what first uses an adapter
    if checked:
        keep(record, engine, adapters=True)


def _has_room(network: Any) -> bool:
    """False where memory that runs out would end the process: a CPU's, with too little of it for the check."""
    device = next(network.parameters()).device
    return device.type != "cpu" or extra_bytes(network, torch.float32) <= free_bytes(device)


def _checked_engine(network: Any, name: str) -> Engine:
    windows = has_windows(network)
    reason = why_not_packed(network)
    try:
        whole = reference_of(network, far=False).near if windows and not reason else None
        with shrunk_windows(network):
            reference = reference_of(network, far=not reason)
    except Exception as error:  # each architecture fails in its own way
        if is_out_of_memory(error):
            raise
        _computes(network, name)
        raise _Unchecked("it computes in its own type only, so that nothing can be checked") from error
    with shrunk_windows(network):
        if whole is not None and relative_error(reference.near, whole) <= NEGLIGIBLE:
            reason = "its windows cannot be tried at loading"
        engine, reason = (None, reason) if reason else _tree_engine(network, name, reference)
        if engine is None:
            padded = checked_padded_engine(network, name, reference)
            padded.reason = reason
            return padded
    if windows:
        _fuse_again(engine)
    engine.fused = (len(fused_layers(network)), len(decoder_layers(network)))
    return engine


@torch.inference_mode()
def _computes(network: Any, name: str) -> None:
    """Raises ModelError unless transformers computes the network, in its own type."""
    try:
        logits_of(network, probe_of(network).rows)
    except Exception as error:  # each architecture fails in its own way
        if is_out_of_memory(error):
            raise
        raise ModelError(f"model {name}: transformers cannot compute it ({first_line(error)}).") from error


def _tree_engine(network: Any, name: str, reference: Reference) -> tuple[TreeEngine | None, str]:
    """An engine on the tree path; or None and the reason why there is none, as a clause."""
    try:
        network.set_attn_implementation(attention.NAME)
        engine = TreeEngine(network, name)
        while True:
            try:
                check_tree(engine, reference)
                check_rounding(engine, reference)
                break
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                if engine.ways.fused:
                    engine.ways.give_up("fused", first_line(error))
                elif fused_layers(network):
                    unfuse_layers(network)
                else:
                    raise
        engine.computed_tokens = 0
        return engine, ""
    except Exception as error:  # each architecture fails in its own way
        if is_out_of_memory(error):
            raise
        unfuse_layers(network)
        told = isinstance(error, Unfit) or (isinstance(error, RuntimeError) and str(error).startswith("its "))
        return None, first_line(error) if told else _UNKNOWN


def _fuse_again(engine: TreeEngine) -> None:
    """Fuses layers with the network's own windows; those that were given up stay as they are."""
    kept = set(map(id, fused_layers(engine.network)))
    unfuse_layers(engine.network)
    for layer in fuse_layers(engine.network, engine.adapters):
        if id(layer) not in kept:
            unfuse(layer)


def why_not_packed(network: Any) -> str:
    """Why rows of this network cannot be packed, as far as its structure tells; empty where it tells nothing."""
    config = network.config.get_text_config(decoder=True)
    if getattr(network, "_is_stateful", False):
        return "its layers keep a state"
    if any(isinstance(module, torch.nn.Conv1d) for module in network.get_decoder().modules()):
        return "its layers convolve over neighbouring tokens"
    kinds = {str(kind) for name in ("layer_types", "layers_block_type") for kind in getattr(config, name, None) or []}
    if any(word in kind for kind in kinds for word in _STATES):
        return "its layers keep a state"
    if any("chunk" in kind for kind in kinds):
        return "its attention is cut into chunks"
    if any(name.startswith("index_topk") and isinstance(value, int) for name, value in vars(config).items()):
        return "its attention picks the tokens that it sees"
    return ""

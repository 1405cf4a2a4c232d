"""The check at loading: an engine is only used when it computes what transformers computes with the same network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rung.engine import attention
from rung.engine.layers import unfuse_layers
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import grow
from rung.engine.tree_engine import TreeEngine
from rung.errors import ModelError, first_line

_PROBE_TOKENS = 24
_SHARED_TOKENS = 20  # of the probe, in a node of their own


def checked_engine(network: Any, name: str) -> TreeEngine:
    """An engine whose logits equal those of transformers, to rounding. name: the model's, for messages.

    Layers whose fused form computes something else are left unfused. Where attention itself is of another kind
    (capped or windowed scores, sinks), raises ModelError. In half precision fused layers round less than those of
    transformers, so that their logits may instead be close to what transformers computes in float32.
    """
    vocabulary = min(network.config.get_text_config().vocab_size, 1000)
    ids = [(7 * i) % vocabulary for i in range(_PROBE_TOKENS)]
    given = torch.tensor([ids], device=next(network.parameters()).device)
    with torch.inference_mode():
        expected = [network(given).logits[0].float()]
        if network.dtype != torch.float32:
            with _in_float32(network):
                expected.append(network(given).logits[0])
    network.set_attn_implementation(attention.NAME)
    engine = TreeEngine(network, name)
    tree = grow([ids[:_SHARED_TOKENS], ids])  # a shared node and one below it
    tolerance = 1e-3 if engine.dtype == torch.float32 else 5e-2
    fact = "its attention is of a kind that is not known here"
    for fused in (True, False):
        if not fused:
            unfuse_layers(network)
            engine.narrows = False
        try:
            with torch.inference_mode():
                found = engine.logits(engine.hidden_of(tree))
        except (TypeError, AttributeError, IndexError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            fact = first_line(error)
            continue
        if any(bool((logits - found).abs().max() <= tolerance * logits.abs().max()) for logits in expected):
            return engine
    raise ModelError(
        f"model {name}: this engine cannot compute it ({fact}). "
        "Models of the Llama, Mistral, Qwen and SmolLM kinds work."
    )


@contextmanager
def _in_float32(network: Any) -> Iterator[None]:
    """Within: the network computes in float32. Weights are converted as they are used: no second copy need fit."""
    given: dict[torch.nn.Parameter, torch.Tensor] = {}

    def convert(module: torch.nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            given.setdefault(parameter, parameter.data)
            parameter.data = parameter.data.float()

    def restore(module: torch.nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = given.pop(parameter, parameter.data)

    modules = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [hook for m in modules for hook in (m.register_forward_pre_hook(convert), m.register_forward_hook(restore))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in given.items():
            parameter.data = data

"""Gradient checkpointing: a layer's tensors are dropped after its forward pass and computed again in the backward pass.

It saves memory for time, about a third more of it. Losses and gradients stay the same to the last bit where the
device computes the same twice. A layer's own forward is wrapped, fused or not, since fused steps bypass the switch that
transformers has in its layers. Knows nothing of losses and optimisers.
Source: Chen et al., Training deep nets with sublinear memory cost (2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from rung.engine import compiled_steps
from rung.engine.attention import TreePass, current_view, viewing


@contextmanager
def checkpointing(network: Any, *, on: bool = True) -> Iterator[None]:
    """Within: layers of the network keep their inputs only, where gradients are recorded. on: False changes nothing."""
    layers = layers_of(network) if on else []
    before = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        for layer in layers:
            vars(layer)["forward"] = partial(_forward, layer.forward)
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                vars(layer).pop("forward", None)
            else:
                vars(layer)["forward"] = forward


def layers_of(network: Any) -> list[Any]:
    """The repeated layers of a network, as transformers marks them; else the longest list of equal modules."""
    try:
        from transformers.modeling_layers import GradientCheckpointingLayer
    except ImportError:  # an older transformers
        marked = []
    else:
        marked = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]
    if marked:
        inner = {id(inside) for m in marked for inside in m.modules() if inside is not m}
        return [m for m in marked if id(m) not in inner]
    lists = [m for m in network.modules() if isinstance(m, torch.nn.ModuleList) and len({type(x) for x in m}) == 1]
    return list(max(lists, key=len, default=()))


def _forward(inner: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward pass of a layer. The random state, and so dropout, is the same in both passes.

    The view and the choice of compiled steps are handed to the second pass: on a GPU that runs in a thread of its own,
    where no context is set.
    """
    if not torch.is_grad_enabled():
        return inner(*args, **kwargs)
    view, compiled = current_view(), compiled_steps.are_taken()

    @contextmanager
    def again() -> Iterator[None]:
        same = view.again() if isinstance(view, TreePass) else view
        with compiled_steps.taken(compiled), viewing(same) if same is not None else nullcontext():
            yield

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), again()

    return checkpoint(inner, *args, use_reentrant=False, context_fn=contexts, **kwargs)

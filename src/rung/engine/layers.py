"""Decoder layers in three fused steps, each with a backward pass of its own.

transformers writes a layer as some fifty operations, each of which is recorded and keeps its tensors. Here it is one
step into attention, one step out of it, and one for the feed-forward network (`fused_steps`). `layer_plan` finds out
which layers can be computed so; the others run as transformers wrote them, beside fused ones. `loading_check` compares
both with transformers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch

from rung.engine import compiled_steps
from rung.engine.adapters import Adapters
from rung.engine.attention import attention, current_view
from rung.engine.layer_plan import LayerPlan, enter, leave, plans_of
from rung.engine.packed import type_of


@dataclass(frozen=True)
class _Fused:
    """A fused layer. otherwise: its forward pass as transformers wrote it, and `names`, those of its arguments.

    following: the next layer; None for the last, which computes and returns only the tokens that the view wants.
    """

    plan: LayerPlan
    adapters: Adapters
    otherwise: Callable[..., Any]
    names: tuple[str, ...]
    following: Any


def decoder_layers(network: Any) -> list[Any]:
    """The decoder's layers, in order; none where they are not found."""
    count, decoder = network.config.get_text_config().num_hidden_layers, network.get_decoder()
    for module in chain([getattr(decoder, "layers", None)], decoder.modules()):
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    return []


def fuse_layers(network: Any, adapters: Adapters) -> list[Any]:
    """Puts the fused steps into every layer of a known kind, and returns these layers.

    The network has this package's attention, and no adapter is applied.
    """
    layers = decoder_layers(network)
    plans = plans_of(layers, adapters)
    for layer, plan, following in zip(layers, plans, [*layers[1:], None][: len(layers)], strict=True):
        if plan is not None:
            names = tuple(inspect.signature(layer.forward).parameters)[1:]
            layer.forward = partial(_forward, layer, _Fused(plan, adapters, layer.forward, names, following))
    return fused_layers(network)


def fused_layers(network: Any) -> list[Any]:
    """The layers that are fused, in order."""
    return [layer for layer in decoder_layers(network) if is_fused(layer)]


def is_fused(layer: Any) -> bool:
    return _fused_in(layer) is not None


def _fused_in(layer: Any) -> _Fused | None:
    """What is fused in a layer, also where more is wrapped around it, such as gradient checkpointing."""
    forward = vars(layer).get("forward")
    while isinstance(forward, partial):
        if forward.func is _forward:
            fused: _Fused = forward.args[1]
            return fused
        forward = forward.args[0] if forward.args else None
    return None


def narrows(network: Any) -> bool:
    """Whether the last layer returns only the tokens that the view wants: where it is fused."""
    layers = decoder_layers(network)
    return bool(layers) and is_fused(layers[-1])


def unfuse(layer: Any) -> None:
    """Takes the fused steps out of a layer again; the engine's `narrows` follows."""
    if is_fused(layer):
        del layer.forward


def unfuse_layers(network: Any) -> None:
    """Takes the fused steps out of all layers."""
    for layer in fused_layers(network):
        unfuse(layer)


def original_forward(layer: Any) -> Callable[..., Any]:
    """The forward pass of a layer as transformers wrote it, fused or not. It takes what the layer takes."""
    fused = _fused_in(layer)
    found: Callable[..., Any] = fused.otherwise if fused is not None else layer.forward
    return found


def _forward(layer: Any, fused: _Fused, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The fused layer. hidden_states: (1, T, C). Returns (1, T, C), or of the last layer only the wanted tokens.

    Where weights other than adapters are trained, or a module was exchanged, runs the layer as transformers wrote it.
    """
    view, plan, adapters = current_view(), fused.plan, fused.adapters
    wanted = view.wanted if fused.following is None and view is not None else None
    own = layer.self_attn
    dtype = type_of(own.o_proj)
    given = {**dict(zip(fused.names, args, strict=False)), **kwargs}
    angles, rotates = given.get("position_embeddings"), plan.enter.rotation != "none"
    known: list[Any] = []
    if view is not None and given.get("past_key_values") is None and plan.holds(layer):
        known = [adapters.together(group) for group in plan.groups(layer)]
    if not known or any(factors is None for factors in known) or (rotates and not isinstance(angles, tuple)):
        result: torch.Tensor = fused.otherwise(hidden_states.to(dtype), *args, **kwargs)
        return result if wanted is None else result[:, wanted]
    x = hidden_states.squeeze(0).float()  # the residual stream is summed in float32, whatever type layers multiply in
    if compiled_steps.are_taken(adapters.mix, known) and torch.is_grad_enabled() and not x.requires_grad:
        trains = any(f.a is not None and f.a.requires_grad for group in known for f in group)
        x = x.detach().requires_grad_(trains)  # the first layer takes the variant of the others
    rotation = (angles[0][0], angles[1][0]) if angles is not None and rotates else None
    query, key, value = (part.transpose(0, 1)[None] for part in enter(plan, adapters, x, known[0], rotation))
    more = {"s_aux": own.sinks} if plan.sinks else {}
    seen, mix = attention(own, query, key, value, None, **plan.given, **more)[0].squeeze(0).flatten(1), adapters.mix
    if wanted is not None and not len(wanted):  # of a prefix the keys and values are needed, which attention has kept
        return x[None, :0]
    if wanted is not None and (plan.gated or mix is None):  # with a mix, other networks need all of their tokens
        if mix is not None:
            places = getattr(view, "places", None)
            mix = mix.of(wanted.tolist() if places is None else places)
        x, seen, wanted = x[wanted], seen[wanted], None
    out = leave(plan, layer, x, seen, known, mix)
    if wanted is not None:
        out = out[wanted]
    # A layer that is not fused takes the type of its weights.
    return out[None] if fused.following is None or is_fused(fused.following) else out[None].to(dtype)

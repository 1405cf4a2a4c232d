"""Which parts a decoder layer has: read from its modules, then tried.

The names of the modules suggest a plan. What norms and activations compute is tried on random numbers, not taken from
their names. At last the whole layer runs once as transformers wrote it, on random hidden states in float32, with a
view that records its arguments. Rotation and attention's arguments are taken from there, and the layer has a plan
only if the fused steps compute the same numbers. So a norm behind the rotation, a scale by position, a multiplier or a
parallel feed-forward network is never mistaken for the known kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.func import functional_call

from rung.engine import compiled_steps
from rung.engine.adapters import Adapters
from rung.engine.attention import viewing
from rung.engine.factors import flat
from rung.engine.fused_steps import (
    ACTIVATIONS,
    ROTATIONS,
    Enter,
    EnterParts,
    FeedForward,
    FeedForwardParts,
    Leave,
    LeaveParts,
    Norm,
)
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.packed import packed_computing_in, weight_of

_TOLERANCE = 1e-3  # of the norm of what is compared, in float32
_POSITIONS = (0, 1, 2, 3, 50, 5_000, 150_000, 10_000_000)  # behind the start of any scale by position

# Names of a layer's norms: before attention, behind it, before the feed-forward network, behind it.
_ARRANGEMENTS = (
    ("input_layernorm", None, "post_attention_layernorm", None),
    (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"),
    ("input_layernorm", None, "pre_feedforward_layernorm", None),
    ("attention_layernorm", None, "feedforward_layernorm", None),
)
_FEED_FORWARDS = ("mlp", "block_sparse_moe", "feed_forward")
_INNER = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))
_GATED = (("gate_proj", "up_proj"), ("gate_up_proj",))
_ACTIVATION_NAMES = ("act_fn", "activation_fn")


@dataclass(frozen=True)
class LayerPlan:
    """The parts of one decoder layer. Projections are read by name, since PEFT wraps them.

    inner: names of the projections in `self_attn` into attention. gated: names of those in the feed-forward network.
    mlp: the name of the feed-forward network in the layer. feed: its parts; those it has when it is a module that runs
    as transformers wrote it (experts, other activations) have no activation. given: keyword arguments of the layer's
    attention: scaling, and a window and a cap, or None. sinks: whether it has sinks, in `self_attn.sinks`.
    modules: (owner, name, module) of all modules that must be as they were found.
    """

    inner: tuple[str, ...]
    enter: EnterParts
    leave: LeaveParts
    mlp: str
    gated: tuple[str, ...]
    feed: FeedForwardParts
    given: Mapping[str, Any]
    sinks: bool
    modules: tuple[tuple[Any, str, Any], ...]

    @property
    def norms(self) -> tuple[Norm, ...]:
        found = (self.enter.norm, self.enter.query_norm, self.enter.key_norm, self.leave.behind)
        return tuple(norm for norm in (*found, self.feed.norm, self.feed.behind) if norm is not None)

    def holds(self, layer: Any) -> bool:
        """Whether the layer still has these modules (PEFT may replace any), and trains none of their weights."""
        same = all(owner._modules.get(name) is module for owner, name, module in self.modules)
        sinks = self.sinks and layer.self_attn.sinks.requires_grad
        return same and not sinks and not any(norm.module.weight.requires_grad for norm in self.norms)

    def groups(self, layer: Any) -> list[list[Any]]:
        """The layer's projections, those with the same input together."""
        attention, mlp = layer.self_attn, getattr(layer, self.mlp)
        found = [[getattr(attention, name) for name in self.inner], [attention.o_proj]]
        if self.gated:
            found += [[getattr(mlp, name) for name in self.gated], [mlp.down_proj]]
        return found


# ---- the steps of a layer, by its plan --------------------------------------------------------------


def enter(plan: LayerPlan, adapters: Adapters, x: torch.Tensor, known: Any, rotation: Any) -> Any:
    """x: (T, C) in float32. known: factors of the inner projections. rotation: (cos, sin), (T, R) each.

    Returns query, (T, H, D), and key and value, (T, Hkv, D).
    """
    cos, sin = rotation if plan.enter.rotation != "none" else (None, None)
    if compiled_steps.are_taken(adapters.mix, [known]):
        return compiled_steps.enter(plan.enter, x, cos, sin, adapters.mix, known)
    return Enter.apply(x, plan.enter, cos, sin, adapters.mix, *flat(known))


def leave(plan: LayerPlan, layer: Any, x: torch.Tensor, seen: torch.Tensor, known: Any, mix: Any) -> torch.Tensor:
    """x: (T, C) in float32, the input of the layer; seen: (T, H * D). Returns the layer's output, (T, C) in float32."""
    if compiled_steps.are_taken(mix, known):
        x = compiled_steps.leave(plan.leave, plan.feed if plan.gated else None, x, seen, mix, known[1:])
    else:
        x = Leave.apply(x, seen, plan.leave, mix, *flat(known[1]))
        if plan.gated:
            x = FeedForward.apply(x, plan.feed, mix, *flat([f for group in known[2:] for f in group]))
    if plan.gated:
        return x
    given = _plain_norm(x, plan.feed.norm).to(known[1][0].weight.dtype)
    found = getattr(layer, plan.mlp)(given[None])
    found = found[0] if isinstance(found, torch.Tensor) else found[0][0]  # some also return their router's scores
    return x + _plain_norm(found.float(), plan.feed.behind) * plan.feed.multiplier


def _plain_norm(x: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    return x if norm is None else norm.scaled(x, norm.factor(x))


# ---- reading a layer ----------------------------------------------------------------------------------


def plans_of(layers: Sequence[Any], adapters: Adapters) -> list[LayerPlan | None]:
    """The plan of each decoder layer; None where none fits, so that the layer runs as transformers wrote it.

    Layers that differ in their weights alone are tried once.
    """
    tried: dict[Any, LayerPlan | None] = {}
    plans = []
    for layer in layers:
        plan = _guarded(_read, layer)
        if plan is not None:
            kind = _kind_of(layer)
            if kind not in tried:
                tried[kind] = _guarded(_tried, layer, plan, adapters)
            plan = _like(plan, tried[kind])
        plans.append(plan)
    return plans


def _guarded(step: Callable[..., LayerPlan | None], *given: Any) -> LayerPlan | None:
    try:
        with torch.no_grad():
            return step(*given)
    except Exception as error:  # a layer of an unknown kind may raise anything
        if is_out_of_memory(error):
            raise
        return None


def _kind_of(layer: Any) -> Any:
    """Types of the layer's modules and all plain values in them, other than its own number."""
    return tuple(
        (name, type(module), tuple((k, v) for k, v in vars(module).items() if k != "layer_idx" and _is_plain(v)))
        for name, module in layer.named_modules()
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _like(plan: LayerPlan, tried: LayerPlan | None) -> LayerPlan | None:
    """The plan with what was found out by trying a layer of its kind; None where that failed."""
    if tried is None:
        return None
    parts = replace(plan.enter, rotation=tried.enter.rotation)
    return replace(plan, enter=parts, given=tried.given, sinks=tried.sinks)


def _read(layer: Any) -> LayerPlan | None:
    """The plan that the modules' names suggest, without rotation and attention's arguments."""
    children = dict(layer.named_children())
    attention = children.pop("self_attn", None)
    mlp_name = next((name for name in _FEED_FORWARDS if name in children), None)
    if attention is None or mlp_name is None:
        return None
    mlp = children.pop(mlp_name)
    children = {name: child for name, child in children.items() if not _is_idle(child)}
    arrangement = next((a for a in _ARRANGEMENTS if {name for name in a if name} == set(children)), None)
    inner = next((names for names in _INNER if set(names) <= set(dict(attention.named_children()))), None)
    if arrangement is None or inner is None:
        return None
    norms = [norm_of(children[name]) if name else None for name in arrangement]
    head_norms = {name: child for name, child in attention.named_children() if name in ("q_norm", "k_norm")}
    of_heads = [norm_of(head_norms[name]) if name in head_norms else None for name in ("q_norm", "k_norm")]
    known = {*inner, "o_proj", *head_norms} == set(dict(attention.named_children()))
    read = sum(norm is not None for norm in [*norms, *of_heads])
    clipped = getattr(attention.config, "clip_qkv", None) is not None  # small numbers would not show it
    if not known or clipped or read != len(children) + len(head_norms):
        return None
    projections = [getattr(attention, name) for name in (*inner, "o_proj")]
    gated, activation = _gated(mlp)
    projections += [getattr(mlp, name) for name in (*gated, "down_proj")] if gated else []
    if any(weight_of(projection) is None for projection in projections):
        return None
    queries, total = attention.o_proj.in_features, sum(getattr(attention, name).out_features for name in inner)
    width, keys = attention.head_dim, (total - queries) // 2
    norm_width = len(of_heads[0].module.weight) if of_heads[0] is not None else width
    if norm_width not in (width, queries):
        return None
    multiplier = float(getattr(layer, "residual_multiplier", 1.0))
    return LayerPlan(
        inner=inner,
        enter=EnterParts(norms[0], of_heads[0], of_heads[1], norm_width != width, (queries, keys, keys), width),
        leave=LeaveParts(norms[1], multiplier),
        mlp=mlp_name,
        gated=gated,
        feed=FeedForwardParts(norms[2], activation, norms[3], multiplier),
        given={},
        sinks=False,
        modules=(
            (layer, "self_attn", attention),
            (layer, mlp_name, mlp),
            *((layer, name, child) for name, child in children.items()),
            *((attention, name, child) for name, child in head_norms.items()),
        ),
    )


def _is_idle(module: Any) -> bool:
    """Whether the module does nothing: dropout of nothing."""
    return isinstance(module, torch.nn.Dropout) and module.p == 0


def _gated(mlp: Any) -> tuple[tuple[str, ...], str]:
    """Names of the projections into a gated feed-forward network, and of its activation; empty for another kind."""
    children = dict(mlp.named_children())
    name = next((name for name in _ACTIVATION_NAMES if name in children), "")
    gated = next((names for names in _GATED if set(children) == {*names, "down_proj", name}), ())
    activation = activation_of(children[name]) if gated else ""
    return (gated, activation) if activation else ((), "")


def activation_of(module: Any) -> str:
    """The name in ACTIVATIONS of what the module computes; empty where it is none of them."""
    x = torch.linspace(-8, 8, 257)
    found = module(x)
    return next((name for name, (known, _) in ACTIVATIONS.items() if torch.allclose(found, known(x), atol=1e-6)), "")


def norm_of(module: Any) -> Norm | None:
    """The norm that the module computes; None where it is of another kind."""
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if weight is None or weight.ndim != 1 or epsilon is None or len(list(module.parameters())) != 1:
        return None
    x = _random(4, len(weight), device=weight.device)
    x[2:] *= epsilon**0.5  # small enough to show an epsilon that is used otherwise
    expected = functional_call(module, {"weight": weight.detach().float()}, (x,))
    for offset in (0.0, 1.0):
        norm = Norm(module, offset, float(epsilon))
        if _close(norm.scaled(x, norm.factor(x)), expected):
            return norm
    return None


# ---- trying a plan ---------------------------------------------------------------------------------------


class _Record:
    """A View that keeps what a layer's attention is asked for. reply: what every call gets, (T, H, D)."""

    def __init__(self, reply: torch.Tensor) -> None:
        self.wanted: torch.Tensor | None = None
        self.long = False
        self.calls: list[tuple[tuple[torch.Tensor, ...], dict[str, Any], torch.Tensor | None]] = []
        self._reply = reply

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        *,
        window: int | None = None,
        cap: float | None = None,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        given = {"scaling": scaling, "sliding_window": window, "softcap": cap}
        self.calls.append(((query, key, value), given, sinks))
        return self._reply


class _Trial(torch.nn.Module):
    """A layer in fused steps, with a given output of attention. A module, so that its weights can be exchanged."""

    def __init__(self, layer: Any, adapters: Adapters) -> None:
        super().__init__()
        self.layer = layer
        self._adapters = adapters

    def forward(self, plan: LayerPlan, x: torch.Tensor, rotation: Any, seen: torch.Tensor) -> Any:
        known = [self._adapters.together(group) for group in plan.groups(self.layer)]
        return *enter(plan, self._adapters, x, known[0], rotation), leave(plan, self.layer, x, seen, known, None)


def _tried(layer: Any, plan: LayerPlan, adapters: Adapters) -> LayerPlan | None:
    """The plan with rotation and attention's arguments, if the fused steps then compute what the layer computes."""
    device, tokens = layer.self_attn.o_proj.weight.device, len(_POSITIONS)
    x = _random(tokens, layer.self_attn.o_proj.out_features, device=device) * 0.1
    cos, sin = _random(2, tokens, plan.enter.width // 2, device=device).repeat(1, 1, 2)
    reply = _random(tokens, plan.enter.sizes[0] // plan.enter.width, plan.enter.width, device=device)
    positions = torch.tensor([_POSITIONS], device=device)
    weights = {
        name: p.detach().float()
        for name, p in layer.named_parameters()
        if _is_tried(name, plan) and p.is_floating_point()
    }
    with _known_network(layer, plan), packed_computing_in(layer, torch.float32):
        call = {"attention_mask": None, "position_ids": positions, "position_embeddings": (cos[None], sin[None])}
        with viewing(record := _Record(reply)):
            expected = functional_call(layer, weights, (x[None],), call)
        ((states, given, sinks),) = record.calls
        theirs = [*states, expected[0] - x]
        if sinks is not None and not _close(layer.self_attn.sinks.float(), sinks):
            return None
        weights = {f"layer.{name}": weight for name, weight in weights.items()}
        for rotation in ROTATIONS:
            parts = replace(plan.enter, rotation=rotation)
            tried = replace(plan, enter=parts, given=given, sinks=sinks is not None)
            *rows, out = functional_call(_Trial(layer, adapters), weights, (tried, x, (cos, sin), reply.flatten(1)))
            if all(_close(a, b) for a, b in zip([*rows, out - x], theirs, strict=True)):
                return tried
    return None


def _is_tried(name: str, plan: LayerPlan) -> bool:
    return bool(plan.gated) or not name.startswith(f"{plan.mlp}.")


@contextmanager
def _known_network(layer: Any, plan: LayerPlan) -> Iterator[None]:
    """Within: a feed-forward network of another kind computes sines: experts are large, and near ties choose them."""
    if plan.gated:
        yield
        return
    own = vars(getattr(layer, plan.mlp))
    before = own.get("forward")
    own["forward"] = torch.sin
    try:
        yield
    finally:
        del own["forward"]
        if before is not None:
            own["forward"] = before


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether every row (the last dimension) is equal to rounding."""
    if found.shape != expected.shape:
        return False
    difference = (found - expected).norm(dim=-1)
    return bool((difference <= _TOLERANCE * expected.norm(dim=-1)).all())


def _random(*shape: int, device: torch.device) -> torch.Tensor:
    """Normally distributed numbers, the same each time, and no draw from the generators that others use."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)

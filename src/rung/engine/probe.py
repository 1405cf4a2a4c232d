"""Rows of tokens on which a network's computations are compared, and how close is close enough.

Three rows share their first tokens, so that a tree has a shared node, and differ behind it. A fourth stands at the far
end of the context, where scales by position show. Windows and chunks are made shorter than the rows for the check.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.precision import computing_in

_SHARED, _OWN, _FAR = 13, 6, 8  # tokens
WINDOW = 8
"""Tokens in a window during the check."""

_WINDOWS = (
    "sliding_window",
    "attention_window_size",
    "attention_chunk_size",
    "window_size",
    "local_attention",
    "keep_window_size",
    "index_topk",
)
_SCALES = ("floor_scale", "log_scaling_n_floor")  # positions from which scores are scaled, in whatever layers
_POSITIONS = ("max_position_embeddings", "max_seq_len", "seq_length")

NEGLIGIBLE = 1e-4
"""Relative error of logits in float32 that changes no answer worth having. Most networks stay far below it."""

_WRONG = 1e-2  # relative error that no rounding in float32 explains
_MORE_THAN_OWN = 1.2  # times transformers' own rounding error
_A_LITTLE = 1e-5


@dataclass(frozen=True)
class Probe:
    """rows: (3, T) token ids, equal in their first `shared`. far: (1, t), at positions from `start` on."""

    rows: torch.Tensor
    far: torch.Tensor
    start: int
    shared: int = _SHARED

    @property
    def positions(self) -> torch.Tensor:
        return torch.arange(self.start, self.start + self.far.shape[1], device=self.far.device)[None]


def probe_of(network: Any, number: int = 0) -> Probe:
    """number: other ids for each."""
    config = network.config.get_text_config(decoder=True)
    special = {getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "unk")}
    usable = [i for i in range(4, min(int(config.vocab_size), 1000)) if i not in special] or [0]
    row = [usable[(7 * i + 131 * number) % len(usable)] for i in range(_SHARED)]
    rows = [row + [usable[(11 * i + 29 * (k + 1) + number) % len(usable)] for i in range(_OWN)] for k in range(3)]
    far = [usable[(13 * i + 5 + number) % len(usable)] for i in range(_FAR)]
    positions = next((n for name in _POSITIONS if isinstance(n := getattr(config, name, None), int) and n > 0), 0)
    device = next(network.parameters()).device
    start = max(0, positions - _FAR - 2)
    return Probe(torch.tensor(rows, device=device), torch.tensor([far], device=device), start)


# ---- what transformers computes -----------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """What transformers' own forward pass computes on a probe.

    near: logits of the rows, (3, T, V). far: of the far row, (1, t, V); None where it was not asked for or cannot stand
    by itself at far positions.
    hidden: final hidden states of the rows, (3, T, C); None where the decoder does not give them.
    """

    probe: Probe
    near: torch.Tensor
    far: torch.Tensor | None
    hidden: torch.Tensor | None


def reference_of(network: Any, number: int = 0, dtype: torch.dtype = torch.float32, *, far: bool = True) -> Reference:
    """In that type, or the network's own where it is finer. far: whether the far row is wanted.

    What the network's forward raises for the rows passes.
    """
    probe = probe_of(network, number)
    with computing_in(network, dtype), torch.inference_mode():
        near, hidden = _with_hidden(network, probe.rows)
        return Reference(probe, near, far_logits(network, probe) if far else None, hidden)


def far_logits(network: Any, probe: Probe) -> torch.Tensor | None:
    """Logits of the far row, (1, t, V); None where the network's forward takes no positions, or none without others."""
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return None
    try:
        return logits_of(network, probe.far, position_ids=probe.positions)
    except (IndexError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return None


def logits_of(network: Any, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    """Of transformers' own forward pass, (B, T, V). ids: (B, T)."""
    if "use_cache" in inspect.signature(network.forward).parameters:
        more["use_cache"] = False
    logits: torch.Tensor = network(input_ids=ids, **more).logits
    return logits


def _with_hidden(network: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits, and the final hidden states that they are made of."""
    found: list[Any] = []
    hook = network.get_decoder().register_forward_hook(lambda _, __, out: found.append(out))
    try:
        logits = logits_of(network, ids)
    finally:
        hook.remove()
    return logits, getattr(found[-1], "last_hidden_state", None) if found else None


# ---- windows ----------------------------------------------------------------------------------


def has_windows(network: Any) -> bool:
    """Whether attention sees only some of the tokens, in any layer."""
    return bool(_windows(network))


@contextmanager
def shrunk_windows(network: Any) -> Iterator[None]:
    """Within: windows and chunks hold at most WINDOW tokens, so that short rows are longer than any of them."""
    given = _windows(network)
    for holder, name, _ in given:
        setattr(holder, name, WINDOW)
    try:
        yield
    finally:
        for holder, name, value in given:
            setattr(holder, name, value)


def _windows(network: Any) -> list[tuple[Any, str, int]]:
    """Where windows wider than WINDOW are kept: (config or module, name of the attribute, value)."""
    configs = {id(c): c for c in [network.config.get_text_config(decoder=True), *_configs(network)]}
    names = (*_SCALES, *(_WINDOWS if _slides(configs.values()) else ()))
    found = [(c, name, vars(c)[name]) for c in configs.values() for name in names if _is_wide(vars(c).get(name))]
    values = {value for _, _, value in found}
    of_modules = [
        (module, name, value)
        for module in network.modules()
        for name in names
        if _is_wide(value := vars(module).get(name)) and value in values | {v + 1 for v in values}
    ]
    return found + of_modules


def _is_wide(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > WINDOW


def _slides(configs: Any) -> bool:
    """Whether any layer uses a window; a config that lists its layers' kinds may keep a width that none uses."""
    kinds = [kind for config in configs for kind in getattr(config, "layer_types", None) or ["sliding"]]
    return any(kind != "full_attention" for kind in kinds)


def _configs(network: Any) -> list[Any]:
    return [c for module in network.modules() if hasattr(c := vars(module).get("config"), "get_text_config")]


# ---- how close is close enough ----------------------------------------------------------------


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Of the token that differs most: the norm of the difference over the norm of the exact logits. (..., V)."""
    error = (found.float() - exact.float()).norm(dim=-1) / exact.float().norm(dim=-1).clamp_min(1e-30)
    return float(error.max()) if bool(torch.isfinite(error).all()) else float("inf")


def is_wrong(error: float) -> bool:
    """Whether no rounding in float32 explains this relative error."""
    return not error <= _WRONG


def rounds_alike(
    found: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, *, times: float = _MORE_THAN_OWN
) -> bool:
    """Whether logits are as close to the exact ones as transformers' own are. All (T, V).

    By the norm of the error over all tokens; or by that of the median token, since where experts are chosen, a few
    tokens get others by chance. times: how many times transformers' own error is allowed.
    """
    ours, own, size = (logits.norm(dim=-1) for logits in (found - exact, theirs - exact, exact))
    return any(
        float(of_tokens(ours)) <= times * float(of_tokens(own)) + _A_LITTLE * float(of_tokens(size))
        for of_tokens in (torch.linalg.vector_norm, torch.median)
    )

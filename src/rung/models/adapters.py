"""LoRA adapters on one network: loaded by PEFT, applied in one fused step, several in one batch.

PEFT makes, loads and stores adapters. What its layers do in several operations is done here in two
products added in place, with a backward pass of its own. Several adapters in one batch: their factors
stand side by side, each token's other factors are multiplied by zero, and the base network is
computed once for all. Adapters with more to them (DoRA, dropout, biases) go through PEFT's own layers.
Sources: Hu et al., LoRA (2021); Chen et al., Punica (2023), and Sheng et al., S-LoRA (2023), for many
adapters over one base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from rung.errors import ModelError

IN_TRAINING = "in_training"
_NO_ADAPTER = "none"


@dataclass
class _Applied:
    """What works on the tokens of a pass: one adapter (None: the base), or several.

    of_tokens: for each token, a place in `names`, (T,); None when there is one name.
    """

    names: tuple[str | None, ...] = (None,)
    of_tokens: torch.Tensor | None = None
    masks: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)
    factors: dict[tuple[int, tuple[str | None, ...]], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def become(self, names: Sequence[str | None], of_tokens: torch.Tensor | None = None) -> None:
        self.names, self.of_tokens = tuple(names), of_tokens
        self.masks.clear()


class Adapters:
    """The adapters of one network, by folder. model: its name, for messages."""

    def __init__(self, network: Any, model: str) -> None:
        self._network = network
        self._model = model
        self._peft: Any = None
        self._names: dict[str, str] = {}
        self._named = 0
        self._applied = _Applied()

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Within: the network with this adapter folder applied (None: the base network)."""
        if adapter is None and self._peft is None:
            yield
            return
        self._apply(None if adapter is None else self._loaded(adapter))
        try:
            yield
        finally:
            self._applied.become((None,))

    @contextmanager
    def mixed(self, adapters: Sequence[str | None], of_tokens: torch.Tensor) -> Iterator[None]:
        """Within: several plain adapters at once. of_tokens: for each token of the pass, a place in `adapters`."""
        self._applied.become([None if a is None else self._loaded(a) for a in adapters], of_tokens)
        try:
            yield
        finally:
            self._applied.become((None,))

    def mixable(self, adapter: str | None) -> bool:
        """Whether the adapter is a plain one, so that it may share a batch with others."""
        if adapter is None:
            return True
        name = self._loaded(adapter)
        layers = [m for m in self._peft.modules() if name in getattr(m, "lora_A", ()) or _embeds(m, name)]
        return all(_plain(layer, name) for layer in layers)

    def begin_training(self, config: Any, seed: int) -> Any:
        """The PEFT wrapper with a fresh trainable adapter of that PEFT config, IN_TRAINING, applied.

        seed: of its first weights, and of torch from here on.
        """
        network = self.wrapper
        torch.manual_seed(seed)
        network.add_adapter(IN_TRAINING, config)
        self._fuse()
        self._apply(IN_TRAINING)
        network.set_adapter(IN_TRAINING)  # trainable this time
        return network

    def end_training(self) -> None:
        """Frees the adapter in training; the base network is applied again."""
        self._drop(IN_TRAINING)

    def forget(self, folder: str) -> None:
        """Frees an adapter's weights; a folder rewritten on disk is read afresh."""
        if name := self._names.pop(folder, None):
            self._drop(name)

    def _apply(self, name: str | None) -> None:
        wanted = name or _NO_ADAPTER
        if self._peft.active_adapter != wanted:
            self._peft.set_adapter(wanted, inference_mode=True)
        self._applied.become((name,))

    def _drop(self, name: str) -> None:
        self._apply(None)
        self._applied.factors.clear()
        self._peft.delete_adapter(name)

    @property
    def wrapper(self) -> Any:
        """PEFT's wrapper round the base network, made at first use."""
        if self._peft is None:
            from peft import LoraConfig, PeftModel

            # PEFT's wrapper is made with an adapter; this one stays untrained, that is zero, at rank 1.
            config = LoraConfig(r=1, target_modules="all-linear")
            self._peft = PeftModel(self._network, config, adapter_name=_NO_ADAPTER)
            self._peft.requires_grad_(False)
            self._fuse()
        return self._peft

    def _loaded(self, folder: str) -> str:
        if folder not in self._names:
            check_adapter(Path(folder))
            name = f"a{self._named}"  # never used twice: PEFT would load into the weights already there
            self._named += 1
            try:
                self.wrapper.load_adapter(folder, adapter_name=name, is_trainable=False)
            except Exception as error:  # wrong shapes, torn files: each library raises its own kinds
                if name in self._peft.peft_config:
                    self._drop(name)
                fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ModelError(f"adapter {folder}: it does not fit {self._model} ({fact}).") from error
            self._fuse()
            self._names[folder] = name
        return self._names[folder]

    def _fuse(self) -> None:
        """Puts the fused step before PEFT's own in every linear layer that PEFT has wrapped."""
        from peft.tuners.lora.layer import Linear

        for module in self._network.modules():
            if type(module) is Linear and "forward" not in vars(module):
                vars(module)["forward"] = partial(_forward, module, self._applied, module.forward)


def check_adapter(folder: Path) -> None:
    """Raises ModelError unless the folder holds a PEFT adapter in safetensors; pickles are never read."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"adapter {folder}: no {name} in this folder.")


def _embeds(layer: Any, name: str) -> bool:
    return name in getattr(layer, "lora_embedding_A", ())


def _plain(layer: Any, name: str) -> bool:
    """Whether an adapter adds no more than B A x alpha / rank to this layer."""
    from peft.tuners.lora.layer import Linear

    return (
        type(layer) is Linear
        and type(layer.base_layer) is torch.nn.Linear
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
    )


def _forward(layer: Any, applied: _Applied, otherwise: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """What a wrapped linear layer does. x: (..., in)."""
    if len(applied.names) > 1:
        return _mixed(layer, applied, x)
    (name,) = applied.names
    result: torch.Tensor
    if name is None or name not in layer.lora_A:
        result = layer.base_layer(x, *args, **kwargs)
    elif not _plain(layer, name):
        result = otherwise(x, *args, **kwargs)
    else:
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        result = _FusedLora.apply(x, layer.base_layer.weight, layer.base_layer.bias, a, b, layer.scaling[name])
    return result


class _FusedLora(torch.autograd.Function):
    """x: (..., in); weight: (out, in), frozen; a: (rank, in); b: (out, rank). Returns x W' + scaling x A' B'."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        narrow = rows @ a.to(x.dtype).T  # (T, rank)
        out = linear(rows, weight, bias).addmm_(narrow, b.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(rows, weight, a, b, narrow)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        rows, weight, a, b, narrow = ctx.saved_tensors
        upper = grad.reshape(-1, grad.shape[-1])
        through = (upper @ b.to(upper.dtype)).mul_(ctx.scaling)  # (T, rank)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (upper @ weight).addmm_(through, a.to(upper.dtype)).view(*grad.shape[:-1], -1)
        grad_a = (through.T @ rows).to(a.dtype)
        grad_b = (upper.T @ narrow).mul_(ctx.scaling).to(b.dtype)
        return grad_x, None, None, grad_a, grad_b, None


def _mixed(layer: Any, applied: _Applied, x: torch.Tensor) -> torch.Tensor:
    """Base and several adapters. x: (1, T, in), its tokens as in applied.of_tokens."""
    result: torch.Tensor = layer.base_layer(x)
    present = tuple((place, name) for place, name in enumerate(applied.names) if name in layer.lora_A)
    if not present:
        return result
    ranks = tuple((place, layer.r[name], layer.scaling[name]) for place, name in present)
    if ranks not in applied.masks:  # the same for most layers of a network
        assert applied.of_tokens is not None
        columns = [
            (applied.of_tokens == place).to(x.dtype)[:, None].expand(-1, rank) * scaling
            for place, rank, scaling in ranks
        ]
        applied.masks[ranks] = torch.cat(columns, dim=1)  # (T, all ranks)
    key = (id(layer), applied.names)
    if key not in applied.factors:
        a = torch.cat([layer.lora_A[name].weight for _, name in present]).to(x.dtype)
        b = torch.cat([layer.lora_B[name].weight for _, name in present], dim=1).to(x.dtype)
        applied.factors[key] = (a.T.contiguous(), b.T.contiguous())
    a, b = applied.factors[key]
    narrow = (x[0] @ a).mul_(applied.masks[ranks])
    result[0].addmm_(narrow, b)
    return result

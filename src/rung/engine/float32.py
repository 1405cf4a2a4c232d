"""A network that computes in float32 for a while, whatever its weights are in: the measure of its rounding errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def in_float32(network: Any) -> Iterator[None]:
    """Within: the network computes in float32. Weights are converted as they are used: no second copy need fit.

    A layer of a list is converted whole, because some layers, and the fused steps, read weights of modules that they do
    not call. Anything else is converted by itself. Buffers too. Packed weights, such as those of 4 bits, stay, and what
    unpacks them does so in float32.
    """
    given: dict[torch.Tensor, torch.Tensor] = {}
    hooks = []
    for module, whole in _units(network):
        own = [t for t in _tensors(module, whole) if t.dtype in _HALF]
        if own:
            hooks.append(module.register_forward_pre_hook(lambda *_, own=own: _convert(own, given)))
            hooks.append(module.register_forward_hook(lambda *_, own=own: _restore(own, given)))
    unpacking = [m for m in network.modules() if isinstance(vars(m).get("compute_dtype"), torch.dtype)]
    types = [module.compute_dtype for module in unpacking]
    for module in unpacking:
        module.compute_dtype = torch.float32
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, data in given.items():
            tensor.data = data
        for module, dtype in zip(unpacking, types, strict=True):
            module.compute_dtype = dtype


@contextmanager
def converted(module: torch.nn.Module | None) -> Iterator[None]:
    """Within: a module's weights are in float32, also for what reads them without calling the module."""
    given: dict[torch.Tensor, torch.Tensor] = {}
    own = [t for t in _tensors(module, whole=True) if t.dtype in _HALF] if module is not None else []
    _convert(own, given)
    try:
        yield
    finally:
        _restore(own, given)


def _units(module: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, bool]]:
    """Modules that are converted together: the entries of lists whole, the others without their children."""
    if isinstance(module, torch.nn.ModuleList):
        for child in module:
            yield child, True
        return
    yield module, False
    for child in module.children():
        yield from _units(child)


def _tensors(module: torch.nn.Module, whole: bool) -> list[torch.Tensor]:
    return [*module.parameters(recurse=whole), *module.buffers(recurse=whole)]


def _convert(tensors: list[torch.Tensor], given: dict[torch.Tensor, torch.Tensor]) -> None:
    for tensor in tensors:
        given.setdefault(tensor, tensor.data)
        tensor.data = tensor.data.float()


def _restore(tensors: list[torch.Tensor], given: dict[torch.Tensor, torch.Tensor]) -> None:
    for tensor in tensors:
        if (data := given.pop(tensor, None)) is not None:
            tensor.data = data

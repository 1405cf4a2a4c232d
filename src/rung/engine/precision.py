"""A network that computes in a finer type for a while than its weights are in: the measure of rounding errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

_Given = dict[torch.Tensor, tuple[torch.Tensor, int]]
"""Weights that are converted: what they were, and how many of the modules that use them are at work."""


@contextmanager
def computing_in(network: Any, dtype: torch.dtype) -> Iterator[None]:
    """Within: the network computes in that type. Weights are converted as they are used: no second copy need fit.

    A layer of a list is converted whole, because some layers, and the fused steps, read weights of modules that they do
    not call. So is the output layer with the network. Anything else is converted by itself. Buffers too. Of embeddings,
    which are large, only the rows that are looked up. Finer weights stay as they are. So do packed ones, such as those
    of 4 bits; they are unpacked in that type.
    """
    given: _Given = {}
    hooks = []
    for module, whole in _units(network):
        if type(module) is torch.nn.Embedding:
            hooks.append(module.register_forward_hook(partial(_finer, dtype)))
            continue
        own = _coarser(module, dtype, whole=whole)
        output = module.get_output_embeddings() if module is network else None
        if output is not None:
            own += _coarser(output, dtype, whole=True)
        if own:
            hooks.append(module.register_forward_pre_hook(partial(_before, own, dtype, given)))
            hooks.append(module.register_forward_hook(partial(_behind, own, given)))
    unpacking: list[Any] = [m for m in network.modules() if isinstance(vars(m).get("compute_dtype"), torch.dtype)]
    types: list[torch.dtype] = [module.compute_dtype for module in unpacking]
    for module in unpacking:
        module.compute_dtype = dtype
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, (data, _) in given.items():
            tensor.data = data
        for module, own_type in zip(unpacking, types, strict=True):
            module.compute_dtype = own_type


def extra_bytes(network: Any, dtype: torch.dtype) -> int:
    """The most memory that `computing_in` takes at a time beside the network."""
    output = network.get_output_embeddings()
    head = _coarser(output, dtype, whole=True) if output is not None else []
    units = [_coarser(m, dtype, whole=whole) for m, whole in _units(network) if type(m) is not torch.nn.Embedding]
    return (_numel(head) + max(map(_numel, units))) * dtype.itemsize


def _numel(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


@contextmanager
def converted(module: torch.nn.Module | None, dtype: torch.dtype) -> Iterator[None]:
    """Within: a module's weights are in that type, also for what reads them without calling the module."""
    given: _Given = {}
    own = _coarser(module, dtype, whole=True) if module is not None else []
    _convert(own, dtype, given)
    try:
        yield
    finally:
        _restore(own, given)


def _units(module: Any) -> Iterator[tuple[Any, bool]]:
    """Modules that are converted together: the entries of lists whole, the others without their children."""
    if isinstance(module, torch.nn.ModuleList):
        for child in module:
            yield child, True
        return
    yield module, False
    for child in module.children():
        yield from _units(child)


def _coarser(module: torch.nn.Module, dtype: torch.dtype, *, whole: bool) -> list[torch.Tensor]:
    """Weights and buffers in a coarser type than that one. whole: those of the module's children too."""
    coarser = [t for t in (torch.float16, torch.bfloat16, torch.float32) if t.itemsize < dtype.itemsize]
    tensors = [*module.parameters(recurse=whole), *module.buffers(recurse=whole)]
    return [tensor for tensor in tensors if tensor.dtype in coarser]


def _convert(tensors: list[torch.Tensor], dtype: torch.dtype, given: _Given) -> None:
    for tensor in tensors:
        data, users = given.get(tensor, (tensor.data, 0))
        given[tensor] = (data, users + 1)
        if not users:
            tensor.data = data.to(dtype)


def _restore(tensors: list[torch.Tensor], given: _Given) -> None:
    for tensor in tensors:
        data, users = given.pop(tensor, (tensor.data, 1))
        if users > 1:
            given[tensor] = (data, users - 1)
        else:
            tensor.data = data


def _before(own: list[torch.Tensor], dtype: torch.dtype, given: _Given, *_: Any) -> None:
    _convert(own, dtype, given)


def _finer(dtype: torch.dtype, _: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
    return out.to(dtype) if out.dtype.itemsize < dtype.itemsize else out


def _behind(own: list[torch.Tensor], given: _Given, *_: Any) -> None:
    _restore(own, given)

"""A network whose layers are divided over several processes: each keeps a part, and gathers a layer when it runs.

For training only, where the network does not fit one card. Embeddings, the last norm and the output layer stay whole in
every process, and so do adapters. Every process must run the same passes, since each layer is gathered from all.
Source: Zhao et al., PyTorch FSDP (2023), as torch.distributed.fsdp.fully_shard has it (torch 2.6 and later).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from rung.engine.engine import Engine
from rung.engine.layers import decoder_layers, fused_layers, is_fused, unfuse, unfuse_layers
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import Ways
from rung.errors import ModelError


def sharded(engine: Engine, mesh: Any) -> TreeEngine:
    """An engine over the same network, whose layers are from now on divided over the processes of the mesh.

    engine: on the CPU, checked, and not used again. mesh: of one dimension, as torch's init_device_mesh makes it; its
    devices are where the layers go, one at a time, so that a card never holds more than one of them whole.
    Raises ModelError where the network cannot be divided.
    """
    layers = decoder_layers(engine.network)
    whole = all(p.dtype.is_floating_point for p in engine.network.parameters())
    if not isinstance(engine, TreeEngine) or not layers or not whole or engine.rope_switch is not None:
        raise ModelError(
            f"model {engine.name}: it cannot be divided over several cards. That needs weights that are not in 4 bits, "
            "layers that the fast path knows, and one kind of positions for all lengths. Use a smaller model, or 4 "
            "bits on one card."
        )
    engine.adapters.check()
    # The process that checks has PEFT's layers, one that reads what was found has none: all divide the same weights.
    if engine.adapters.trainable:
        engine.adapters.wrapper.unload()
    kept = [is_fused(layer) for layer in layers]
    unfuse_layers(engine.network)
    _move_the_rest(engine.network, layers, _device_of(mesh))
    new = TreeEngine(engine.network, engine.name)
    for layer, fused in zip(layers, kept, strict=True):
        if not fused:
            unfuse(layer)
    new.base, new.base_version = engine.base, engine.base_version
    new.fused = (len(fused_layers(new.network)), len(layers))
    new.adapters.plain, new.adapters.reads = engine.adapters.plain, engine.adapters.reads
    new.ways = Ways(fused=new.ways.fused)  # gathering weights is not recorded, and not compiled
    _shard(layers, mesh)
    return new


def _shard(layers: list[Any], mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    # A layer returns a view; nothing adds to it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    for layer in layers:
        fully_shard(layer, mesh=mesh)


def _device_of(mesh: Any) -> torch.device:
    """Of this process."""
    return torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")


def _move_the_rest(network: Any, layers: list[Any], device: torch.device) -> None:
    """Moves what belongs to no layer to the device. Weights that are one, such as tied ones, stay one."""
    of_layers = {id(module) for layer in layers for module in layer.modules()}
    for module in network.modules():
        if id(module) in of_layers:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)

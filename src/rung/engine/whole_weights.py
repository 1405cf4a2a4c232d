"""All weights of a network in a folder that stands where an adapter's folder stands: what full fine-tuning leaves.

The folder is one that transformers loads by itself (config.json, model.safetensors). To answer with it, the network's
weights are exchanged in place and put back afterwards: the parameters stay the same objects, so that whatever reads
them reads the new weights, and tied weights stay tied. Knows nothing of losses and optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import ModelError, TrainingError, first_line

_OF_ADAPTERS = ("lora_", "modules_to_save", "token_adapter")
_WRAPPED = ("base_layer", "original_module")

Exchange = list[tuple[torch.nn.Parameter, torch.Tensor]]
"""Weights of the network, and the tensors that take their place."""


def is_whole(folder: Path) -> bool:
    """Whether the folder holds a network's own weights and no adapter."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one, or several shards in order."""
    return sorted(folder.glob("model*.safetensors"))


def weights_of(network: Any) -> dict[str, torch.nn.Parameter]:
    """Name -> weight, as in the network without PEFT. A tied weight stands under its first name alone."""
    return {_plain_name(name): p for name, p in network.named_parameters() if _is_own(name)}


def save_weights(network: Any, folder: Path) -> None:
    """Writes the weights, in the types of the network, and its configuration."""
    state = {_plain_name(name): tensor for name, tensor in network.state_dict().items() if _is_own(name)}
    network.save_pretrained(folder, state_dict=state)


class WholeWeights:
    """Exchanges the weights of one network. model: its name, for messages. At most one folder is kept in memory."""

    def __init__(self, network: Any, model: str) -> None:
        self._network = network
        self._model = model
        self._folder: str | None = None
        self._loaded: Exchange = []
        self._in_use = False
        self._base: Exchange = []  # while the weights are trained: the ones to put back

    @contextmanager
    def using(self, folder: str) -> Iterator[None]:
        """Within: the network with the weights of that folder."""
        self.load(folder)
        before = [(parameter, parameter.data) for parameter, _ in self._loaded]
        self._in_use = True
        try:
            _exchange(self._loaded)
            yield
        finally:
            _exchange(before)
            self._in_use = False

    def load(self, folder: str) -> None:
        """Reads the folder, unless it is the one that was read last.

        Raises ModelError where its weights are not those of this network by name and shape.
        """
        if folder == self._folder:
            return
        self._folder, self._loaded = None, []
        try:
            self._loaded = self._read(folder)
        except Exception as error:  # torn files, wrong shapes: each library raises its own kinds
            if is_out_of_memory(error):
                raise
            raise ModelError(f"weights {folder}: they do not fit {self._model} ({first_line(error)}).") from error
        self._folder = folder

    def forget(self, folder: str) -> None:
        """Frees the weights of that folder; one that is rewritten on disk is read afresh."""
        if folder == self._folder:
            self._folder, self._loaded = None, []

    def make_room(self) -> None:
        """Frees the weights of the last folder, unless they are in use; they are read again when they are needed."""
        if not self._in_use:
            self._folder, self._loaded = None, []

    def _read(self, folder: str) -> Exchange:
        if not weight_files(Path(folder)):
            raise ValueError("no model.safetensors in this folder")
        own = weights_of(self._network)
        first = next(iter(own.values()))
        with torch.inference_mode(False):
            other, said = type(self._network).from_pretrained(
                folder,
                dtype=first.dtype,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
            )
            for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                if wrong := sorted(map(str, said.get(what) or ())):
                    raise ValueError(f"{what.replace('_', ' ')}: {len(wrong)}, {wrong[0]} first")
            read = {name: p.data.to(first.device) for name, p in weights_of(other).items()}
        if differing := sorted(own.keys() ^ read.keys()):
            raise ValueError(f"{len(differing)} weights have other names, {differing[0]} first")
        for name, parameter in own.items():
            if parameter.shape != read[name].shape:
                raise ValueError(f"{name} is {tuple(read[name].shape)} and not {tuple(parameter.shape)}")
        return [(parameter, read[name].to(parameter.dtype)) for name, parameter in own.items()]

    # ---- training ------------------------------------------------------------------------------

    def begin_training(self) -> dict[str, torch.nn.Parameter]:
        """Name -> weight, each a copy that may be changed and records gradients, until `end_training`.

        Raises TrainingError where weights are stored in a type that has no gradients, as 4-bit ones are.
        """
        self._folder, self._loaded = None, []
        own = weights_of(self._network)
        if fixed := [name for name, p in own.items() if not p.is_floating_point()]:
            raise TrainingError(
                f"model {self._model}: its weights are stored in few bits ({fixed[0]} first), so that they cannot be "
                "trained themselves. Train an adapter, or load the model in full."
            )
        for parameter in own.values():
            self._base.append((parameter, parameter.data))
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        return own

    def start_from(self, folder: str) -> None:
        """Copies the weights of that folder into the ones in training."""
        self.load(folder)
        for parameter, tensor in self._loaded:
            parameter.data.copy_(tensor)
        self.forget(folder)

    def end_training(self) -> None:
        """Puts the very tensors back that were there before, whatever happened in between."""
        _exchange(self._base)
        for parameter, _ in self._base:
            parameter.grad = None
            parameter.requires_grad_(False)
        self._base = []


def _exchange(weights: Exchange) -> None:
    for parameter, tensor in weights:
        parameter.data = tensor


def _is_own(name: str) -> bool:
    return not any(part.startswith(_OF_ADAPTERS) for part in name.split("."))


def _plain_name(name: str) -> str:
    """PEFT wraps a module once for each of its weights that it adapts."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPED)

"""Plain LoRA adapters as rows of numbers, read from their files without PEFT and without touching the network.

Plain is an adapter that adds B A x × scaling to linear layers and nothing more. Its factors stand in one row, by an
AdapterLayout: adapters of the same layers and of nearly the same rank have rows of one layout, so that several stand
in one matrix and are multiplied at once. What is not plain is PEFT's: `plan_of` says so and reads nothing.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from rung.engine.adapter_folder import WEIGHTS, AdapterFolder
from rung.engine.gpu_kernels import on_device
from rung.engine.packed import weight_of

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_NUMBER = re.compile(r"\.\d+\.")
_LEAST_RANK = 8
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # of init_lora_weights: plain once it is trained
# Fields of the configuration that change nothing about a plain adapter's answers, or that are read here.
_READ = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules"),
    *("layers_to_transform", "init_lora_weights"),
}
_WITHOUT_EFFECT = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode", "bias"),
    *("auto_mapping", "lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "loftq_config"),
    *("eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying"),
}

Names = tuple[str, ...]
Blocks = list[tuple[torch.Tensor, list[tuple[int, torch.Tensor]]]]
"""Of linear layers with the same input: a, (…, n × rank, in), and for each of its n layers its place among them and its
b, (…, rank, out). One entry for layers that stand side by side in the row."""


@dataclass(frozen=True)
class LinearSize:
    """A linear layer's size."""

    ins: int
    outs: int


@dataclass(frozen=True)
class AdapterLayout:
    """Where factors stand in a row. rank: of the row, a power of two; smaller ranks are filled with zeros.

    layers: name and size of the layers that are adapted, in the network's order. First come the a of all layers,
    (rank, in) each, then their b, (rank, out) each, which the scaling is multiplied into.
    """

    rank: int
    layers: tuple[tuple[str, LinearSize], ...]

    @cached_property
    def starts(self) -> tuple[dict[str, tuple[int, int]], int]:
        """Name -> where its a and its b start; and the length of a row."""
        end, first = 0, {}
        for name, size in self.layers:
            first[name] = end
            end += self.rank * size.ins
        found = {}
        for name, size in self.layers:
            found[name] = (first[name], end)
            end += self.rank * size.outs
        return found, end

    def blocks(self, rows: torch.Tensor, names: Names) -> Blocks:
        """Views of rows (…, length): the factors of layers with the same input. Empty where it adapts none of them."""
        starts, _ = self.starts
        sizes, lead = dict(self.layers), rows.shape[:-1]
        runs: list[list[int]] = []
        for place, name in enumerate(names):
            if name not in starts:
                continue
            before = names[runs[-1][-1]] if runs else None
            if before and starts[before][0] + self.rank * sizes[before].ins == starts[name][0]:
                runs[-1].append(place)
            else:
                runs.append([place])
        found = []
        for run in runs:
            first, ins = starts[names[run[0]]][0], sizes[names[run[0]]].ins
            high = len(run) * self.rank
            a = rows[..., first : first + high * ins].view(*lead, high, ins)
            bs = []
            for place in run:
                start, outs = starts[names[place]][1], sizes[names[place]].outs
                bs.append((place, rows[..., start : start + self.rank * outs].view(*lead, self.rank, outs)))
            found.append((a, bs))
        return found


class NotFinite(ValueError):
    """The weights of an adapter are no finite numbers in the type of the base."""


@dataclass(frozen=True, eq=False)
class PlainAdapter:
    """An adapter in memory. row: in the type and on the device of the network. Nothing of it changes.

    number: no other one that was ever read has it.
    """

    layout: AdapterLayout
    row: torch.Tensor
    number: int = field(default_factory=itertools.count().__next__)
    known: dict[Names, Blocks] = field(default_factory=dict)

    def blocks(self, names: Names) -> Blocks:
        """As `AdapterLayout.blocks`, of this adapter: a (n × rank, in), b (rank, out)."""
        if (found := self.known.get(names)) is None:
            found = self.known[names] = self.layout.blocks(self.row, names)
        return found


def linears_of(network: Any) -> dict[str, torch.nn.Linear]:
    """Name -> linear layer, in order, as they were before any adapter; without the output layer."""
    output = network.get_output_embeddings()
    return {
        name.removesuffix(".base_layer"): module
        for name, module in network.named_modules()
        if weight_of(module) is not None and module is not output and ".lora_" not in name
    }


@dataclass(frozen=True)
class PlainPlan:
    """How the row of an adapter is made. scalings: name of a layer -> what its b is multiplied by."""

    folder: AdapterFolder
    layout: AdapterLayout
    scalings: Mapping[str, float]


def plan_of(folder: AdapterFolder, sizes: Mapping[str, LinearSize]) -> PlainPlan | None:
    """The plan of a plain adapter; None where PEFT has to load the folder. Reads no weights.

    sizes: of the network's linear layers, by name, in order. Raises ValueError where a plain adapter does not fit.
    """
    config = folder.config
    more = [name for name, value in config.items() if value and name not in _READ | _WITHOUT_EFFECT]
    if more or config.get("init_lora_weights") not in _STARTS:
        return None
    found: dict[str, set[str]] = {}
    for key in folder.tensors:
        if (match := _KEY.fullmatch(key)) is None:
            return None
        found.setdefault(match[1], set()).add(match[2])
    if elsewhere := [name for name in found if name not in sizes]:
        patterns = {_NUMBER.sub(".N.", name) for name in sizes}
        if not all(_NUMBER.sub(".N.", name) in patterns for name in elsewhere):
            return None  # PEFT knows former names of some layers
        keys = sum(len(found[name]) for name in elsewhere)
        raise ValueError(f"it has weights for {keys} places that the model lacks, {elsewhere[0]} first")
    scalings, ranks = {}, {}
    for name in sizes:
        if name in found:
            rank, alpha = _of_layer(config, "rank_pattern", "r", name), _of_layer(config, "alpha_pattern", "", name)
            if rank is None or alpha is None:
                return None
            ranks[name] = int(rank)
            scalings[name] = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    _check_whole(folder, found, sizes, ranks)
    rank = max(_LEAST_RANK, 1 << (max(ranks.values()) - 1).bit_length())
    return PlainPlan(folder, AdapterLayout(rank, tuple((n, s) for n, s in sizes.items() if n in found)), scalings)


def _of_layer(config: Mapping[str, Any], patterns: str, otherwise: str, layer: str) -> float | None:
    """Rank or alpha of a layer; None where a pattern is no plain name."""
    known = config.get(patterns) or {}
    value = config.get(otherwise, 8) if otherwise else config.get("lora_alpha", 8)
    for name, own in known.items():
        if not re.fullmatch(r"[\w.]+", name):
            return None
        if layer == name or layer.endswith(f".{name}"):
            value = own
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"its alpha or rank is {str(value)[:40]}, which is no number")
    return value


def _check_whole(
    folder: AdapterFolder, found: Mapping[str, set[str]], sizes: Mapping[str, LinearSize], ranks: Mapping[str, int]
) -> None:
    """Both factors of every layer are there, in the shapes that configuration and network ask for."""
    expected = [name for name in sizes if name in found or _is_target(folder.config, name)]
    if more := [name for name in found if _is_target(folder.config, name) is False]:
        raise ValueError(f"it has weights for {len(more)} layers that its configuration leaves out, {more[0]} first")
    if missing := [name for name in expected if found.get(name) != {"A", "B"}]:
        raise ValueError(f"its weights lack {len(missing)} of its layers, {missing[0]} first")
    if not expected:
        raise ValueError("it adapts none of the layers of this model")
    for name in expected:
        size, rank = sizes[name], ranks[name]
        for part, shape in (("A", (rank, size.ins)), ("B", (size.outs, rank))):
            own = folder.tensors[f"base_model.model.{name}.lora_{part}.weight"].shape
            if own != shape:
                raise ValueError(f"{name}.lora_{part} is {own} and not {shape}")


def _is_target(config: Mapping[str, Any], name: str) -> bool | None:
    """Whether the configuration names a layer; None where it has patterns instead of lists: the weights decide then."""
    targets, without = config.get("target_modules"), config.get("exclude_modules") or []
    if not isinstance(targets, list) or not isinstance(without, list):
        return None
    if _is_named(name, without):
        return False
    numbers = config.get("layers_to_transform")
    if numbers is not None and numbers != []:
        layer = re.match(r".*?\.[^.]*\.(\d+)\.", name)
        if layer is None or int(layer[1]) not in (numbers if isinstance(numbers, list) else [numbers]):
            return False
    return _is_named(name, targets)


def _is_named(name: str, among: Sequence[Any]) -> bool:
    return any(name == own or name.endswith(f".{own}") for own in among)


def read_plain(plan: PlainPlan, dtype: torch.dtype, device: torch.device) -> PlainAdapter:
    """Reads the weights. Raises NotFinite where they are no finite numbers, OSError where the file cannot be read.

    The file is copied into memory at once: what happens to it later changes nothing.
    """
    from safetensors.torch import load

    layout = plan.layout
    starts, length = layout.starts
    with torch.inference_mode(False), torch.no_grad():
        tensors = load((plan.folder.path / WEIGHTS).read_bytes())
        row = torch.zeros(length, dtype=dtype)
        for name, size in layout.layers:
            a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
            rank, (first, second) = len(a), starts[name]
            row[first : first + rank * size.ins].view(rank, size.ins).copy_(a)
            scaled = b.float().mul_(plan.scalings[name]) if b.dtype != torch.float64 else b * plan.scalings[name]
            row[second : second + rank * size.outs].view(rank, size.outs).copy_(scaled.T)
        low, high = torch.aminmax(row)
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise NotFinite(f"it holds numbers that are not finite, or too large for {str(dtype)[6:]}")
        # Without a wait: any thread may read one, also while another thread records a pass, where torch refuses waits.
        return PlainAdapter(layout, on_device(row, device))

"""Which layers of a network an adapter goes into: all linear layers that PEFT takes, the output layer apart."""

from __future__ import annotations

from typing import Any

import torch

ALL_LINEAR = "all-linear"


def adaptable_layers(network: Any) -> str | list[str]:
    """Target modules for a LoraConfig: "all-linear" where PEFT takes it, else the names of the layers that it takes.

    PEFT refuses layers whose weights the network reads without calling them, such as Mamba's output projection. It
    would adapt wrongly what calls itself linear and computes something else, such as routers and block-diagonal layers.
    Some layers it would not find again in an adapter's folder. Experts that are kept as one weight of three dimensions
    are no linear layers: PEFT would compute a change as large as all of them in each pass. Empty where nothing can be
    adapted. A name is a module's last name; it is the whole name where a refused layer has that last name too. Imports
    PEFT.
    """
    names = linear_layers(network)
    moved = {last for last in {_last(name) for name in names} if _is_moved(network, last)}
    refused = {
        name
        for name in names
        if _last(name) in moved or _is_refused(network, name) or not _computes_linearly(network, name)
    }
    refused |= _lost(network, [name for name in names if name not in refused])
    if names and not refused and not _is_moved(network, ALL_LINEAR):
        return ALL_LINEAR
    output = network.get_output_embeddings()
    others = refused | {name for name, module in network.named_modules() if module is output}
    taken = {_last(name) for name in others}
    return sorted({name if _last(name) in taken else _last(name) for name in names if name not in refused})


def linear_layers(network: Any) -> list[str]:
    """Names of all linear layers but the output layer, as they were before any adapter."""
    from transformers.pytorch_utils import Conv1D

    output = network.get_output_embeddings()
    return [
        name.removesuffix(".base_layer")
        for name, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and ".lora_" not in name and module is not output
    ]


def _is_refused(network: Any, name: str) -> bool:
    """Whether PEFT says that it cannot adapt the layer of that name in this kind of network."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    check = getattr(LoraModel, "_check_target_module_compatiblity", None)  # PEFT's spelling
    if check is None:
        return False
    try:
        check(LoraModel, LoraConfig(), network, _last(name))
    except ValueError:
        return True
    return False


def _is_moved(network: Any, target: str) -> bool:
    """Whether PEFT puts something else in the place of a target module: the experts and the router of this network.

    In transformers 4 they were linear layers by such names. Layers that have these names today get no adapter then.
    """
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:  # another version of PEFT
        return False
    given = target if target == ALL_LINEAR else [target]
    config = LoraConfig(target_modules=given)
    try:
        convert(config, model=network, conversions=None)
    except ValueError:  # half of what it moves
        return True
    return config.target_modules != (given if isinstance(given, str) else set(given))


def _lost(network: Any, names: list[str]) -> set[str]:
    """Layers whose weights PEFT would not find again in an adapter's folder.

    It renames what it reads as transformers renames the weights of old checkpoints, and takes some new names for old.
    """
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers as read
    except ImportError:  # another version of PEFT
        return set()
    keys = {name: f"base_model.model.{name}.lora_A.weight" for name in names}
    config = LoraConfig(target_modules=sorted({_last(name) for name in names}))
    found = read(network, config, {key: torch.zeros(1, 1) for key in keys.values()})
    return {name for name, key in keys.items() if key not in found}


@torch.no_grad()
def _computes_linearly(network: Any, name: str) -> bool:
    """Whether a layer that transformers derived from torch's linear one computes what that one computes."""
    module = network.get_submodule(name)
    module = getattr(module, "base_layer", module)
    kind = type(module)
    own = isinstance(module, torch.nn.Linear) and kind.forward is not torch.nn.Linear.forward
    if not own or not kind.__module__.startswith("transformers.models."):
        return True
    x = torch.linspace(-1, 1, 2 * module.in_features, dtype=module.weight.dtype, device=module.weight.device)
    x = x.view(1, 2, -1)
    try:
        found = module(x)
    except Exception:  # it takes another shape
        return False
    expected = torch.nn.Linear.forward(module, x)
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
        return False
    return float((found - expected).norm()) <= 0.05 * float(expected.norm())  # they may round otherwise


def _last(name: str) -> str:
    return name.rpartition(".")[2]

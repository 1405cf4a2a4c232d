"""LoRA adapters on one network: loaded by PEFT, applied in one fused step, several in one batch.

PEFT makes, loads and stores adapters. Its layers need several operations; here they are one step (`factors`). Adapters
that hold more than two factors (DoRA, dropout, biases) go through PEFT's own layers. A folder of whole weights takes
the place of the base network (`whole_weights`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rung.engine.adapter_folder import check_adapter as check_adapter
from rung.engine.adapter_folder import check_base_stays
from rung.engine.factors import Factors, FusedLinear, flat, side_by_side
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.target_modules import adaptable_layers
from rung.engine.whole_weights import WholeWeights, is_whole
from rung.errors import ModelError, first_line

IN_TRAINING = "in_training"
_NO_ADAPTER = "none"


class Adapters:
    """The adapters of one network, by folder. model: its name, for messages."""

    def __init__(self, network: Any, model: str) -> None:
        self._network = network
        self._model = model
        self._dtype = next(network.parameters()).dtype
        self._peft: Any = None
        self._names: dict[str, str] = {}
        self._named = 0
        self._applied: tuple[str | None, ...] = (None,)
        self._stored: dict[tuple[tuple[int, ...], tuple[str | None, ...]], list[Factors]] = {}
        self._known_sizes: dict[str, frozenset[tuple[int, float]]] = {}
        self._known_mixable: dict[str, bool] = {}
        self.whole = WholeWeights(network, model)
        self.plain = False
        """Whether PEFT's layers compute as PEFT wrote them, without the fused step."""
        self.on_first_use: Callable[[], None] | None = None
        """Called when PEFT's wrapper was made, until it passes: the check of adapters. It needs PEFT's slow import."""
        self.mask: torch.Tensor | None = None
        """With several adapters at once: each rank's scaling for each token, 0 for those of others, (T, all ranks)."""

    # ---- which adapter is applied ---------------------------------------------------------------

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Within: the network with this adapter folder applied (None: the base network).

        A folder of whole weights takes the place of the base network.
        """
        if adapter is not None and is_whole(Path(adapter)):
            with self.whole.using(adapter), self.using(None):
                yield
            return
        if adapter is None and self._peft is None:
            yield
            return
        self._apply(None if adapter is None else self._loaded(adapter))
        try:
            yield
        finally:
            self._applied = (None,)

    @contextmanager
    def mixed(self, adapters: Sequence[str | None], of_tokens: torch.Tensor) -> Iterator[None]:
        """Within: several mixable adapters at once. of_tokens: for each token of the pass, a place in `adapters`."""
        names = tuple(None if a is None else self._loaded(a) for a in adapters)
        self._apply(None)  # no layer that PEFT computes itself keeps the adapter of an earlier pass
        columns = []
        for place, name in enumerate(names):
            if name is not None:
                ((rank, scaling),) = self._sizes(name)
                columns.append((of_tokens == place).to(self._dtype)[:, None].expand(-1, rank) * scaling)
        self._applied, self.mask = names, torch.cat(columns, dim=1)
        try:
            yield
        finally:
            self._applied, self.mask = (None,), None

    def mixable(self, adapter: str | None) -> bool:
        """Whether an adapter may share a batch with others: plain, and of one rank and scaling in all layers."""
        if adapter is None:
            return True
        if is_whole(Path(adapter)):
            self.whole.load(adapter)
            return False
        name = self._loaded(adapter)
        if name not in self._known_mixable:
            config = self._peft.peft_config[name]
            more = config.modules_to_save or getattr(config, "trainable_token_indices", None)
            layers = [m for m in self._peft.modules() if name in getattr(m, "lora_A", ()) or _embeds(m, name)]
            plain = not self.plain and not more and all(_plain(layer, name) for layer in layers)
            self._known_mixable[name] = plain and len(self._sizes(name)) == 1
        return self._known_mixable[name]

    @property
    def is_base(self) -> bool:
        """Whether no adapter is applied."""
        return self._applied == (None,)

    def _sizes(self, name: str) -> frozenset[tuple[int, float]]:
        """(rank, scaling) of the layers of a loaded adapter."""
        if name not in self._known_sizes:
            layers = [m for m in self._peft.modules() if name in getattr(m, "lora_A", ())]
            self._known_sizes[name] = frozenset((m.r[name], m.scaling[name]) for m in layers)
        return self._known_sizes[name]

    def _apply(self, name: str | None) -> None:
        wanted = name or _NO_ADAPTER
        if self._peft.active_adapter != wanted:
            self._peft.set_adapter(wanted, inference_mode=True)
        self._applied = (name,)

    def factors(self, layer: Any) -> Factors | None:
        """A linear layer with the adapter that is applied; None when it needs PyTorch's or PEFT's own code.

        It does where its weights are trained themselves, and for DoRA and the like.
        """
        if getattr(layer, "base_layer", layer).weight.requires_grad:
            return None
        if type(layer) is torch.nn.Linear:
            return Factors(layer.weight, layer.bias)
        if type(getattr(layer, "base_layer", None)) is not torch.nn.Linear:
            return None
        base = layer.base_layer
        if len(self._applied) > 1:
            return self._join(layer)
        (name,) = self._applied
        if name is None or name not in layer.lora_A:
            return Factors(base.weight, base.bias)
        if not _plain(layer, name):
            return None
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return Factors(base.weight, base.bias, a, b, layer.scaling[name])

    def together(self, layers: Sequence[Any]) -> list[Factors] | None:
        """`factors` of linear layers with the same input; None when any of them needs other code.

        Factors of adapters that are not in training are stored for the next pass, in the type of the network.
        """
        key = (tuple(id(layer) for layer in layers), self._applied)
        if (stored := self._stored.get(key)) is not None:
            return stored
        found = [self.factors(layer) for layer in layers]
        known = [f for f in found if f is not None]
        if len(known) < len(found):
            return None
        if IN_TRAINING in self._applied or all(f.a is None for f in known):
            return known
        if any(names != self._applied for _, names in self._stored):
            self._stored.clear()
        known = [f if f.a is None else replace(f, a=f.a.to(self._dtype), b=f.b.to(self._dtype)) for f in known]
        known[0] = replace(known[0], side=side_by_side(known, self._dtype))
        self._stored[key] = known
        return known

    def _join(self, layer: Any) -> Factors:
        base = layer.base_layer
        a, b = [], []
        for name in self._applied:
            if name is None:
                continue
            if name in layer.lora_A:
                a.append(layer.lora_A[name].weight.to(self._dtype))
                b.append(layer.lora_B[name].weight.to(self._dtype))
            else:  # this adapter has no factors for the layer
                ((rank, _),) = self._sizes(name)
                a.append(base.weight.new_zeros(rank, base.weight.shape[1]))
                b.append(base.weight.new_zeros(base.weight.shape[0], rank))
        return Factors(base.weight, base.bias, torch.cat(a), torch.cat(b, dim=1))

    # ---- making, loading, dropping ---------------------------------------------------------

    def begin_training(self, config: Any, seed: int) -> Any:
        """The PEFT wrapper with a fresh trainable adapter of that PEFT config, IN_TRAINING, applied.

        seed: for its first weights, and for torch from here on.
        """
        network = self.wrapper
        self.end_training()  # of one that was begun when memory ran out
        torch.manual_seed(seed)
        with _without_remarks():
            network.add_adapter(IN_TRAINING, config)
        self._fuse()
        self._apply(IN_TRAINING)
        network.set_adapter(IN_TRAINING)  # trainable this time
        return network

    def begin_whole_training(self, seed: int) -> dict[str, torch.nn.Parameter]:
        """Name -> weight of the base network, all of them trainable until `end_training` puts back what was there.

        seed: for torch from here on.
        """
        self.end_training()
        with self.using(None):
            torch.manual_seed(seed)
            return self.whole.begin_training()

    def end_training(self) -> None:
        """Frees what is in training, also an adapter that is half made; the base network is applied again."""
        self.whole.end_training()
        if self._peft is not None:
            self._drop(IN_TRAINING)

    def forget(self, folder: str) -> None:
        """Frees an adapter's weights; a folder rewritten on disk is read afresh."""
        self.whole.forget(folder)
        if name := self._names.pop(folder, None):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._apply(None)
        self._stored.clear()
        self._known_sizes.pop(name, None)
        self._known_mixable.pop(name, None)
        # Where making an adapter fails midway, PEFT forgets its config but not the layers that have it.
        self._peft.peft_config.setdefault(name, self._peft.peft_config[_NO_ADAPTER])
        self._peft.delete_adapter(name)

    @property
    def wrapper(self) -> Any:
        """PEFT's wrapper around the base network, created at first use."""
        if self._peft is None:
            from peft import LoraConfig, PeftModel

            # PEFT's wrapper needs an adapter; this one has rank 1 and stays untrained, so that it adds zero.
            config = LoraConfig(r=1, target_modules=adaptable_layers(self._network))
            with _without_remarks():
                self._peft = PeftModel(self._network, config, adapter_name=_NO_ADAPTER)
            self._peft.requires_grad_(False)
            self._fuse()
        if (check := self.on_first_use) is not None:
            self.on_first_use = None  # the check itself uses the wrapper
            try:
                check()
            except BaseException:  # whoever asks next finds no adapters either
                self.on_first_use = check
                raise
        return self._peft

    @property
    def trainable(self) -> bool:
        """Whether PEFT can put adapters into this network. The first call makes PEFT's wrapper, which is slow."""
        try:
            return self.wrapper is not None
        except Exception as error:  # each kind of network fails in its own way
            if is_out_of_memory(error):
                raise
            return False

    def _loaded(self, folder: str) -> str:
        if folder not in self._names:
            check_adapter(Path(folder))
            name = f"a{self._named}"  # a new name each time: PEFT would load into the weights that are there
            self._named += 1
            wrapper = self.wrapper
            try:
                check_base_stays(folder)
                at = str(next(self._network.parameters()).device)  # else PEFT goes by way of a GPU where there is one
                with _without_remarks():
                    keys = wrapper.load_adapter(folder, adapter_name=name, is_trainable=False, torch_device=at)
                if missing := [key for key in keys.missing_keys if f".{name}." in key]:
                    raise ValueError(f"its weights lack {len(missing)} of its layers, {missing[0]} first")
                if more := [key for key in keys.unexpected_keys if ".lora_" in key]:
                    raise ValueError(f"it has weights for {len(more)} places that the model lacks, {more[0]} first")
                output = self._network.get_output_embeddings()
                if name in getattr(output, "lora_A", ()) or name in getattr(output, "modules_to_save", ()):
                    raise ValueError("it changes the output layer, which works without adapters here")
            except Exception as error:  # wrong shapes, torn files: each library raises its own kinds
                self._drop(name)
                if is_out_of_memory(error):
                    raise
                fact = first_line(error)
                raise ModelError(f"adapter {folder}: it does not fit {self._model} ({fact}).") from error
            self._fuse()
            self._names[folder] = name
        return self._names[folder]

    def unfuse(self) -> None:
        """Takes the fused step out again, for good: PEFT's layers compute as PEFT wrote them."""
        self.plain = True
        for module in self._network.modules():
            if getattr(vars(module).get("forward"), "func", None) is _forward:
                del module.forward

    def _fuse(self) -> None:
        """Puts the fused step before PEFT's own in every linear layer that PEFT has wrapped, unless `plain`."""
        if self.plain:
            return
        from peft.tuners.lora.layer import Linear

        for module in self._network.modules():
            if type(module) is Linear and "forward" not in vars(module):
                vars(module)["forward"] = partial(_forward, module, self, module.forward)


_REMARKS: tuple[tuple[str, type[Warning]], ...] = (
    (".*is_gradient_checkpointing.*", FutureWarning),  # PEFT asks transformers for a property by its former name
    (".*fan_in_fan_out.*", UserWarning),  # PEFT sets it right by itself
    # It sets these itself for adapters of experts, applies them, and says that it does not.
    (".*_pattern keys did not match.*gate_up_proj.*", RuntimeWarning),
)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Within: PEFT does not warn of what it settles by itself when it puts adapters into a network."""
    with warnings.catch_warnings():
        for message, kind in _REMARKS:
            warnings.filterwarnings("ignore", message, kind)
        yield


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


def _forward(
    layer: Any, adapters: Adapters, otherwise: Any, x: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """The forward pass of a wrapped linear layer. x: (..., in)."""
    factors = adapters.together([layer])
    result: torch.Tensor
    if factors is None and adapters.is_base:
        result = layer.base_layer(x, *args, **kwargs)
    elif factors is None:
        result = otherwise(x, *args, **kwargs)
    else:
        (result,) = FusedLinear.apply(x.reshape(-1, x.shape[-1]), adapters.mask, *flat(factors))
        result = result.view(*x.shape[:-1], -1)
    return result

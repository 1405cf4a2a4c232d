"""LoRA adapters on one network, applied in one fused step, several in one batch.

Plain ones are read from their files and stand beside the network (`adapter_plain`). PEFT makes adapters for training,
stores them, and loads what is not plain (DoRA, biases, whole layers); its layers need several operations, which here
are one step where they allow it (`factors`). A folder of whole weights takes the place of the base network
(`whole_weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rung.engine.adapted_forward import adapted_forward
from rung.engine.adapter_cast import CastFactors
from rung.engine.adapter_folder import check_adapter as check_adapter
from rung.engine.adapter_held import HeldAdapters
from rung.engine.adapter_mix import AdapterMix
from rung.engine.adapter_peft import adds_factors_only, without_remarks
from rung.engine.adapter_plain import AdapterLayout, LinearSize, PlainAdapter, linears_of
from rung.engine.adapter_slots import AdapterSlots
from rung.engine.factors import Factors, side_by_side, unadapted, with_plain
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.target_modules import adaptable_layers
from rung.engine.whole_weights import WholeWeights, is_whole
from rung.errors import ModelError, first_line

IN_TRAINING = "in_training"
_NO_ADAPTER = "none"
_MOST_SLOTS = 16
_MOST_LAYOUTS = 4  # that have slots


class Adapters:
    """The adapters of one network, by folder. model: its name, for messages.

    `hold` may be called from any thread at any time. Everything else is for the thread that computes.
    """

    def __init__(self, network: Any, model: str) -> None:
        self._network = network
        self._model = model
        first = next(network.parameters())
        self._dtype, self._device = first.dtype, first.device
        self._linears = linears_of(network)
        self._paths = {id(module): name for name, module in self._linears.items()}
        sizes = {name: LinearSize(m.in_features, m.out_features) for name, m in self._linears.items()}
        self.held = HeldAdapters(sizes, model, self._dtype, first.device)
        """The plain adapters in memory."""
        self.most_slots = _MOST_SLOTS
        """Adapters that share one product where their tokens are few. More of them in one pass take one each."""
        self._slots: dict[int, AdapterSlots] = {}  # by the id of their layout; the one used last stands last
        self._last: AdapterMix | None = None
        self._peft: Any = None
        self._names: dict[str, str] = {}
        self._named = 0
        self._applied: str | PlainAdapter | AdapterMix | None = None  # a str: PEFT's name of an adapter
        self._stored: dict[tuple[tuple[int, ...], str | int | None], list[Factors]] = {}
        self.whole = WholeWeights(network, model)
        self.base_version = ""
        """The version of the network's files; an adapter that was trained on another one is refused. Empty: unknown."""
        self.plain = False
        """Whether PEFT's layers compute as PEFT wrote them, without the fused step; PEFT loads every adapter then."""
        self.reads = True
        """Whether plain adapters are read without PEFT."""
        self.on_first_use: Callable[[], None] | None = None
        """The check of adapters, called when the first one is used, until it passes. It needs PEFT's slow import."""
        self.cast: CastFactors | None = None
        """Where the adapter in training stands in the type of the products, while such passes are computed."""

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
        with self.applying(None if adapter is None else self._plain(adapter) or self._loaded(adapter)):
            yield

    def output_of(self, adapter: str | None) -> AbstractContextManager[None]:
        """Within: logits are computed with the output layer of this adapter's network: a folder of whole weights has
        its own; every other adapter has the base's."""
        if adapter is not None and is_whole(Path(adapter)):
            return self.whole.using(adapter)
        return nullcontext()

    def mixed(self, adapters: Sequence[str | None], of_tokens: Sequence[int]) -> AbstractContextManager[None]:
        """Within: several mixable adapters at once. of_tokens: for each token of the pass, a place in `adapters`.

        Adapters that no token has cost nothing. The same call as the one before costs next to nothing.
        """
        places, present = list(of_tokens), set(of_tokens)
        found = [self._mixed(a) if i in present and a is not None else None for i, a in enumerate(adapters)]
        if self._last is None or self._last.adapters != tuple(found) or self._last.of_tokens != places:
            self._last = AdapterMix(found, places, self._slots_of, self._device)
        return self.applying(self._last)

    @contextmanager
    def applying(self, adapter: str | PlainAdapter | AdapterMix | None) -> Iterator[None]:
        """Within: an adapter by its name in PEFT, one beside the network, or several; None: the base network."""
        self._apply(adapter)
        try:
            yield
        finally:
            self._applied = None

    @contextmanager
    def casting(self, cast: CastFactors | None) -> Iterator[None]:
        """Within: passes of the adapter in training read these copies, made now; None: each layer makes its own."""
        if cast is not None:
            cast.refresh()
        self.cast = cast
        try:
            yield
        finally:
            self.cast = None

    def plain_ones(self, adapters: Sequence[str | None]) -> dict[str | None, PlainAdapter | None]:
        """Each of these mixable adapters as it stands in memory; the base is None."""
        return {adapter: self._mixed(adapter) if adapter is not None else None for adapter in dict.fromkeys(adapters)}

    def mixable(self, adapter: str | None) -> bool:
        """Whether an adapter may share a batch with others: a plain one. Loads it where it is not loaded.

        Raises ModelError where the folder holds no adapter for this network.
        """
        if adapter is None:
            return True
        if is_whole(Path(adapter)):
            self.whole.load(adapter)
            return False
        if self._plain(adapter) is not None:
            return True
        self._loaded(adapter)
        return False

    def hold(self, adapter: str) -> bool:
        """Reads a plain adapter into memory; takes tens of milliseconds. Returns False where it did not, since PEFT has
        to load the folder or it holds whole weights: `mixable` does that, in the thread that computes.

        May be called from any thread, also while the network computes. Raises ModelError as `mixable` does.
        """
        if is_whole(Path(adapter)):
            check_adapter(Path(adapter), self.base_version)
            return False
        if self.plain or not self.reads:
            check_adapter(Path(adapter), self.base_version)
            return False
        return self.held.hold(adapter, self.base_version) is not None

    def check(self) -> None:
        """Checks adapters against PEFT's own arithmetic, unless that was done. The first use of one does it otherwise.

        It takes seconds. Raises ModelError where even PEFT's own layers would compute something else.
        """
        if (check := self.on_first_use) is not None:
            self.on_first_use = None  # the check itself uses adapters
            try:
                check()
            except BaseException:  # whoever asks next finds no adapters either
                self.on_first_use = check
                raise

    @property
    def is_base(self) -> bool:
        """Whether no adapter is applied."""
        return self._applied is None

    @property
    def is_beside(self) -> bool:
        """Whether what is applied stands beside the network: a plain adapter, or several."""
        return isinstance(self._applied, (PlainAdapter, AdapterMix))

    @property
    def mix(self) -> AdapterMix | None:
        """With several adapters at once: which tokens have which."""
        return self._applied if isinstance(self._applied, AdapterMix) else None

    def _plain(self, folder: str) -> PlainAdapter | None:
        """The adapter, read where it is not held; None where PEFT has to load it."""
        self.check()
        if self.plain or not self.reads or folder in self._names:
            return None
        return self.held.hold(folder, self.base_version)

    def _mixed(self, folder: str) -> PlainAdapter:
        if (adapter := self._plain(folder)) is None:
            raise ValueError(f"adapter {folder}: it cannot share a batch")
        return adapter

    def _slots_of(self, layout: AdapterLayout) -> AdapterSlots:
        """Few layouts have slots at a time, so that their memory is bounded."""
        slots = self._slots.pop(id(layout), None) or AdapterSlots(self.most_slots)
        self._slots[id(layout)] = slots
        while len(self._slots) > _MOST_LAYOUTS:
            del self._slots[next(iter(self._slots))]
        return slots

    def _apply(self, adapter: str | PlainAdapter | AdapterMix | None) -> None:
        if self._peft is not None:
            # No layer that PEFT computes itself keeps the adapter of an earlier pass.
            wanted = adapter if isinstance(adapter, str) else _NO_ADAPTER
            if self._peft.active_adapter != wanted:
                self._peft.set_adapter(wanted, inference_mode=True)
        self._applied = adapter
        if self.is_beside:
            self._fuse_linears()

    def factors(self, layer: Any) -> Factors | None:
        """A linear layer with PEFT's adapter that is applied; None when it needs PyTorch's or PEFT's own code.

        It does where its weights are trained themselves, and for DoRA and the like.
        """
        base = getattr(layer, "base_layer", layer)
        if base.weight.requires_grad or (plain := unadapted(base)) is None:
            return None
        name = self._applied
        if layer is base or not isinstance(name, str) or name not in layer.lora_A:
            return plain
        if not adds_factors_only(layer, name):
            return None
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return replace(plain, a=a, b=b, scaling=layer.scaling[name])

    def together(self, layers: Sequence[Any]) -> list[Factors] | None:
        """Linear layers with the same input, with what is applied; None when any of them needs other code.

        Factors of adapters that are not in training are stored for the next pass, in the type of the network.
        """
        applied = self._applied
        # What a mix adds is not in the factors, so that they are those of any mix.
        name = applied.number if isinstance(applied, PlainAdapter) else applied if isinstance(applied, str) else None
        key = (tuple(id(layer) for layer in layers), name)
        if applied is not None and (stored := self._stored.get(key)) is not None:
            return stored
        found = [self.factors(layer) for layer in layers]
        known = [f for f in found if f is not None]
        if len(known) < len(found):
            return None
        if self.is_beside:
            names = tuple(self._paths.get(id(getattr(layer, "base_layer", layer)), "") for layer in layers)
            known = with_plain(known, applied, names) if isinstance(applied, PlainAdapter) else known
            if isinstance(applied, AdapterMix):
                known[0] = replace(known[0], side=names)
        elif applied in (None, IN_TRAINING) or all(f.a is None for f in known):
            return known if self.cast is None or applied is None else self.cast.of(key[0], known)
        else:
            known = [f if f.a is None else replace(f, a=f.a.to(self._dtype), b=f.b.to(self._dtype)) for f in known]
            known[0] = replace(known[0], side=side_by_side(known, self._dtype))
        if any(other not in (name, None) for _, other in self._stored):  # of a mix there are no tensors in it
            self._stored = {key: factors for key, factors in self._stored.items() if key[1] is None}
        self._stored[key] = known
        return known

    # ---- making, loading, dropping ---------------------------------------------------------

    def begin_training(self, config: Any, seed: int) -> Any:
        """The PEFT wrapper with a fresh trainable adapter of that PEFT config, IN_TRAINING, applied.

        seed: for its first weights, and for torch from here on.
        """
        network = self.wrapper
        self.end_training()  # of one that was begun when memory ran out
        torch.manual_seed(seed)
        with without_remarks():
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
            self._stored.clear()  # layers whose weights are trained need other code
            return self.whole.begin_training()

    def end_training(self) -> None:
        """Frees what is in training, also an adapter that is half made; the base network is applied again."""
        self.whole.end_training()
        if self._peft is not None:
            self._drop(IN_TRAINING)

    def forget(self, folder: str) -> None:
        """Frees an adapter's weights; a folder rewritten on disk is read afresh."""
        self.whole.forget(folder)
        if (adapter := self.held.forget(folder)) is not None:
            for layout, slots in list(self._slots.items()):
                slots.forget(adapter)
                if not len(slots):
                    del self._slots[layout]
        self._stored.clear()
        self._last = None
        if name := self._names.pop(folder, None):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._apply(None)
        self._stored.clear()
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
            with without_remarks():
                self._peft = PeftModel(self._network, config, adapter_name=_NO_ADAPTER)
            self._peft.requires_grad_(False)
            self._fuse()
        self.check()
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
            check_adapter(Path(folder), self.base_version)
            name = f"a{self._named}"  # a new name each time: PEFT would load into the weights that are there
            self._named += 1
            wrapper = self.wrapper
            try:
                at = str(next(self._network.parameters()).device)  # else PEFT goes by way of a GPU where there is one
                with without_remarks():
                    keys = wrapper.load_adapter(folder, adapter_name=name, is_trainable=False, torch_device=at)
                if missing := [key for key in keys.missing_keys if f".{name}." in key]:
                    raise ValueError(f"its weights lack {len(missing)} of its layers, {missing[0]} first")
                if more := list(keys.unexpected_keys):
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
        self._stored.clear()
        for module in self._network.modules():
            if getattr(vars(module).get("forward"), "func", None) is adapted_forward:
                del module.forward

    def _fuse_linears(self) -> None:
        """Puts the fused step into linear layers that PEFT has not wrapped: those of layers that are not fused."""
        for module in self._linears.values():
            if "forward" not in vars(module):
                vars(module)["forward"] = partial(adapted_forward, module, self, module.forward)

    def _fuse(self) -> None:
        """Puts the fused step before PEFT's own in every linear layer that PEFT has wrapped, unless `plain`."""
        if self.plain:
            return
        from peft.tuners.lora.layer import Linear

        for module in self._network.modules():
            if type(module) is Linear and "forward" not in vars(module):
                vars(module)["forward"] = partial(adapted_forward, module, self, module.forward)

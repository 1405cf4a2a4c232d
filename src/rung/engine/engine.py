"""One network, its adapters and its memory limits: what both ways to compute it have in common.

`tree_engine` computes packed rows and shares their prefixes; `padded_engine` computes padded batches as transformers
does. `loading_check` chooses between them. Knows nothing of text, chat turns or files other than adapter folders.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch

from rung.engine.adapters import Adapters
from rung.engine.factors import Factors, FusedLinear, flat
from rung.engine.kv_cache import cache_bytes
from rung.engine.memory import Shortage, give_back, limits_of, room_of
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.rope import prepare_rope
from rung.engine.shared_card import Patience, others_bytes
from rung.engine.training_memory import scored_at_once
from rung.engine.ways import ways_of

Result = TypeVar("Result")


class Engine:
    """A causal language model of transformers, and how it is computed. name: for messages."""

    path: ClassVar[str]
    """"tree" or "padded"."""

    def __init__(self, network: Any, name: str) -> None:
        self.name = name
        self.base = name
        """What PEFT loads the base of an adapter from: a folder or an id of the hub."""
        self.network = network.eval().requires_grad_(False)
        self.device: torch.device = next(network.parameters()).device
        self.dtype: torch.dtype = network.dtype  # of the first weights that are no integers
        self.reason = ""
        """Why the network does not take the tree path; empty where it does."""
        self.fused = (0, 0)
        """Number of layers that run fused, and of all layers."""
        self.adapters = Adapters(network, name)
        self._output = network.get_output_embeddings()
        self.head_alone = type(self._output) is torch.nn.Linear
        """Whether logits are the output layer's and nothing more: not scaled, capped or projected."""
        config = network.config.get_text_config(decoder=True)
        weight = getattr(self._output, "weight", None)
        self.vocabulary = int(config.vocab_size if weight is None or not self.head_alone else weight.shape[0])
        """Number of logits of a token."""
        self.cache_bytes_per_token = cache_bytes(config, self.dtype)
        self.rope_switch = prepare_rope(network)
        """As `rope.prepare_rope` says."""
        self.limits = limits_of(self.device)
        self.ways = ways_of(self.device)
        self.shortage = Shortage()
        self._patience = Patience()
        self.on_make_room: list[Callable[[], None]] = []
        """Called where memory ran out: each frees what can be made again, such as recorded graphs, whose memory torch
        gives to nobody else while they are there."""
        self.computed_tokens = 0
        """Tokens that went through the network so far; a token that is trained on counts twice, for its way back."""

    @property
    def base_version(self) -> str:
        """The version of what lies at `base`; empty where the loader does not say it."""
        return self.adapters.base_version

    @base_version.setter
    def base_version(self, version: str) -> None:
        self.adapters.base_version = version

    def is_long(self, length: int) -> bool:
        """Whether a row of so many tokens, with room for those to come, is long: it never shares a pass with others.

        Only models with longrope have long rows. They are computed within `rope.long_factors(True)`.
        """
        return self.rope_switch is not None and length > self.rope_switch

    def scores(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], prefix: Any = None
    ) -> tuple[torch.Tensor, int]:
        """Logits that predict each target token, and the number of tokens computed for them. Records gradients.

        rows: (prompt, target) ids, neither empty. prefix: the first tokens of every prompt, already computed; only a
        TreeEngine has any. Returns (t, V) in float32, where t counts the target tokens of all rows, in order.
        """
        raise NotImplementedError

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of every token, (T, V) in float32, from final hidden states (T, C)."""
        if not self.head_alone:
            return self._head(hidden).float()
        hidden = hidden.to(self._output.weight.dtype)
        if self._output.weight.requires_grad:
            scores: torch.Tensor = self._output(hidden)
        else:
            (scores,) = FusedLinear.apply(hidden, None, *flat([Factors(self._output.weight, self._output.bias)]))
        return scores.float()

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the network's own forward makes of final hidden states, its caps and multipliers included."""
        decoder = self.network.get_decoder()
        if decoder is self.network:
            raise AttributeError("its decoder is not apart from its output layer")
        out = _HiddenStates(hidden.to(self.dtype)[None])
        own = vars(decoder).get("forward")
        vars(decoder)["forward"] = lambda *_, **__: out
        try:
            ids = torch.zeros(1, len(hidden), dtype=torch.long, device=self.device)
            logits: torch.Tensor = self.network(input_ids=ids, use_cache=False).logits[0]
        finally:
            if own is None:
                del vars(decoder)["forward"]
            else:
                vars(decoder)["forward"] = own
        return logits

    def clear_prefix_cache(self) -> None:
        """Frees the prefix cache, where there is one; what is needed again is computed again."""

    def make_room(self) -> None:
        """Frees what can be freed after memory ran out: the prefix cache, weights that stand by, what `on_make_room`
        frees, and what Python and torch keep for later."""
        self.clear_prefix_cache()
        self.adapters.whole.make_room()
        for free in self.on_make_room:
            free()
        gc.collect()
        give_back(self.device)

    def room_bytes(self) -> int:
        """As `memory.room_of`: what the KV cache of the next batch may take, given what is free now."""
        return room_of(self.device, self.limits)

    def scored_tokens(self) -> int:
        """Tokens of prompts and given answers that go through the network at once: the limit, or what fits now."""
        fitting = scored_at_once(self)
        return self.limits.scored_tokens if fitting is None else min(self.limits.scored_tokens, fitting)

    def waits_for_others(self) -> bool:
        """Where one row does not fit because other processes hold memory of the GPU: waits, and says to try again.

        False where they hold none, and once a few seconds were waited: the row does not fit.
        """
        return self._patience.wait(self.device, others_bytes(self.device))

    def retried(self, work: Callable[[], Result]) -> Result:
        """What `work` returns. Where memory runs out, what can be freed is freed and it is done once more."""
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self.make_room()
        return work()

    def forget_adapter(self, folder: str) -> None:
        """Frees an adapter's weights and what was computed with it; a folder rewritten on disk is read afresh."""
        self.adapters.forget(folder)


class _HiddenStates:
    """A decoder's output in transformers' form: final hidden states (1, T, C). Any other field is None."""

    def __init__(self, hidden: torch.Tensor) -> None:
        from transformers.modeling_outputs import BaseModelOutput

        self._known = BaseModelOutput(last_hidden_state=hidden)

    def __getitem__(self, place: Any) -> Any:
        return self._known[place]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name, None)

"""One network, its adapters and its memory limits: what both ways to compute it have in common.

`tree_engine` computes packed rows and shares their prefixes; `padded_engine` computes padded batches as transformers
does. `loading_check` chooses between them. Knows nothing of text, chat turns or files other than adapter folders.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from rung.engine.adapters import Adapters, Factors, FusedLinear, flat
from rung.engine.memory import Shortage, give_back, limits_of
from rung.engine.out_of_memory import is_out_of_memory

Result = TypeVar("Result")


class Engine:
    """A causal language model of transformers, and how it is computed. name: for messages."""

    def __init__(self, network: Any, name: str) -> None:
        self.name = name
        self.network = network.eval().requires_grad_(False)
        self.device: torch.device = next(network.parameters()).device
        self.dtype: torch.dtype = next(network.parameters()).dtype
        self.adapters = Adapters(network, name)
        self._output = network.get_output_embeddings()
        self.vocabulary = int(self._output.weight.shape[0])
        config = network.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cache_bytes_per_token = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        self.limits = limits_of(self.device)
        self.shortage = Shortage()
        self.computed_tokens = 0
        """Tokens that went through the network so far; a token that is trained on counts twice, for its way back."""

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
        hidden = hidden.to(self._output.weight.dtype)
        if self._output.weight.requires_grad or type(self._output) is not torch.nn.Linear:
            scores: torch.Tensor = self._output(hidden)
        else:
            (scores,) = FusedLinear.apply(hidden, None, *flat([Factors(self._output.weight, self._output.bias)]))
        return scores.float()

    def clear_prefix_cache(self) -> None:
        """Frees the prefix cache, where there is one; what is needed again is computed again."""

    def make_room(self) -> None:
        """Frees what can be freed after memory ran out: the prefix cache, and what Python and torch keep for later."""
        self.clear_prefix_cache()
        gc.collect()
        give_back(self.device)

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

"""One network and its passes: tokens in, final hidden states out, computed beginnings kept.

Every pass is one packed row of tokens without padding; what each token sees is a View of `attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rung.engine.adapters import Adapters, Factors, FusedLinear, flat
from rung.engine.attention import KeysAndValues, TreeView, View, blocks_of
from rung.engine.layers import fuse_layers
from rung.engine.memory import limits_of
from rung.engine.prefix_tree import Tree, grow


@dataclass(frozen=True)
class Beginning:
    """Tokens and their keys and values, (P, Hkv, D) each, one pair a layer; `cut` shares their memory."""

    ids: tuple[int, ...]
    layers: tuple[KeysAndValues, ...]

    def cut(self, length: int) -> Beginning:
        return Beginning(self.ids[:length], tuple((key[:length], value[:length]) for key, value in self.layers))

    def with_gradients(self) -> Beginning:
        """The same keys and values as leaves, so that gradients towards them can be gathered."""
        leaves = tuple((k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in self.layers)
        return Beginning(self.ids, leaves)

    @property
    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in self.layers)


class Engine:
    """A causal language model of transformers that was loaded with this package's attention."""

    def __init__(self, network: Any, name: str) -> None:
        self.network = network.eval().requires_grad_(False)  # layers whose weights are trained are not fused
        self.device = next(network.parameters()).device
        self.dtype = next(network.parameters()).dtype
        self.adapters = Adapters(network, name)
        self.narrows = fuse_layers(network, self.adapters)
        """Whether the last layer leaves out what is not wanted."""
        self._output = network.get_output_embeddings()
        self.vocabulary = int(self._output.weight.shape[0])
        config = network.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cache_bytes_per_token = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        self.limits = limits_of(self.device)
        self.computed_tokens = 0
        """Tokens put through the network so far; one that is trained on counts twice, for its way back."""
        self._kept: dict[tuple[str | None, tuple[int, ...]], Beginning] = {}

    def forward(self, ids: Sequence[int], positions: Sequence[int], view: View) -> torch.Tensor:
        """Final hidden states of packed tokens: of those that the view wants (t, C), or of all (T, C)."""
        self.computed_tokens += len(ids)
        out = self.network.get_decoder()(
            input_ids=torch.tensor([list(ids)], device=self.device),
            # transformers passes a mask of four dimensions on as it is; ours is the view.
            attention_mask=torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device),
            position_ids=torch.tensor([list(positions)], device=self.device),
            use_cache=False,
            view=view,
        )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden if view.wanted is None or self.narrows else hidden[view.wanted]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of every token, (T, V) in float32, from final hidden states (T, C)."""
        hidden = hidden.to(self._output.weight.dtype)
        if self._output.weight.requires_grad or type(self._output) is not torch.nn.Linear:
            scores: torch.Tensor = self._output(hidden)
        else:
            (scores,) = FusedLinear.apply(hidden, None, *flat([Factors(self._output.weight, self._output.bias)]))
        return scores.float()

    def hidden_of(
        self,
        tree: Tree,
        after: Sequence[Beginning | None] = (None,),
        kept: list[KeysAndValues] | None = None,
        wanted: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Final hidden states of a tree's tokens, (T, C), in packed order; of those at the wanted places alone, (t, C).

        after: for each family of the tree, what its rows stand behind. kept: where to leave the tokens'
        keys and values, (T, Hkv, D) each, one pair a layer.
        """
        lengths = [len(beginning.ids) if beginning is not None else 0 for beginning in after]
        offsets = [sum(lengths[:family]) for family in range(len(after))]
        past = sum(lengths)
        above = []
        for family, length in enumerate(lengths):
            tokens = [(node.start, node.start + node.length) for node in tree.nodes if node.family == family]
            if length and tokens:
                above.append((offsets[family], length, tokens[0][0], tokens[-1][1]))
        above += [(past + n.start, n.length, n.start + n.length, n.end) for n in tree.nodes]
        layers = None
        if present := [beginning.layers for beginning in after if beginning is not None and beginning.ids]:
            layers = present[0] if len(present) == 1 else _joined(present)
        places = torch.tensor(wanted, dtype=torch.long, device=self.device) if wanted is not None else None
        view = TreeView(blocks_of(tree.nodes, above, past, self.device), layers, kept, places)
        positions = [lengths[n.family] + n.position + i for n in tree.nodes for i in range(n.length)]
        return self.forward(tree.ids, positions, view)

    def compute(self, ids: Sequence[int], *, after: Beginning | None = None) -> Beginning:
        """Keys and values of a beginning, with gradients when gradients are on. after: what is known of it."""
        kept: list[KeysAndValues] = []
        self.hidden_of(grow([list(ids[len(after.ids) if after is not None else 0 :])]), [after], kept, [])
        return Beginning(tuple(ids), _joined([after.layers, tuple(kept)]) if after is not None else tuple(kept))

    def beginning(self, adapter: str | None, ids: Sequence[int]) -> Beginning:
        """Keys and values of a beginning under an adapter folder; kept, and used again for whatever begins alike."""
        wanted = tuple(ids)
        best, length = None, 0
        for key in [k for k in self._kept if k[0] == adapter]:
            alike = 0
            while alike < min(len(key[1]), len(wanted)) and key[1][alike] == wanted[alike]:
                alike += 1
            if alike > length:
                best, length = key, alike
        known = None
        if best is not None:
            known = self._kept[best] = self._kept.pop(best)  # used last, dropped last
            if length == len(wanted):
                return known.cut(length)
        with self.adapters.using(adapter), torch.inference_mode():
            computed = self.compute(wanted, after=known.cut(length) if known is not None else None)
        if best is not None and length == len(best[1]):
            del self._kept[best]  # the new one holds it
        self._kept[adapter, wanted] = computed
        while sum(b.bytes for b in self._kept.values()) > self.limits.kept_bytes:
            del self._kept[next(iter(self._kept))]
        return computed

    def forget_adapter(self, folder: str) -> None:
        """Frees an adapter's weights and what was computed with it; a folder rewritten on disk is read afresh."""
        self.adapters.forget(folder)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != folder}


def _joined(parts: Sequence[Sequence[KeysAndValues]]) -> tuple[KeysAndValues, ...]:
    """Stretches of tokens one behind the other, layer by layer."""
    return tuple(
        (torch.cat([key for key, _ in layer]), torch.cat([value for _, value in layer]))
        for layer in zip(*parts, strict=True)
    )

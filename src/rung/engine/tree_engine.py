"""The fast path: every pass is one packed row of tokens without padding, and what rows share is computed once.

What each token sees is a View of `attention`. Keeps a prefix cache. Works for networks whose layers exchange
information between tokens by attention alone; `loading_check` finds out. Knows nothing of text, chat turns or files
other than adapter folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rung.engine.attention import KeysAndValues, TreeView, View, blocks_of, viewing
from rung.engine.engine import Engine
from rung.engine.layers import fuse_layers
from rung.engine.prefix_tree import Tree, grow


@dataclass(frozen=True)
class Prefix:
    """Tokens and their keys and values, (P, Hkv, D) each, one pair a layer. `cut` shares their memory."""

    ids: tuple[int, ...]
    layers: tuple[KeysAndValues, ...]

    def cut(self, length: int) -> Prefix:
        return Prefix(self.ids[:length], tuple((key[:length], value[:length]) for key, value in self.layers))

    def with_gradients(self) -> Prefix:
        """The same keys and values as leaves, so that gradients towards them can be gathered."""
        leaves = tuple((k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in self.layers)
        return Prefix(self.ids, leaves)

    @property
    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in self.layers)


class TreeEngine(Engine):
    """A network that was loaded with this package's attention. name: for messages."""

    def __init__(self, network: Any, name: str) -> None:
        super().__init__(network, name)  # layers whose weights are trained are not fused
        self.narrows = fuse_layers(network, self.adapters)
        """Whether the last layer computes the wanted tokens only."""
        self._prefixes: dict[tuple[str | None, tuple[int, ...]], Prefix] = {}

    def scores(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], prefix: Prefix | None = None
    ) -> tuple[torch.Tensor, int]:
        known = len(prefix.ids) if prefix is not None else 0
        tree = grow([[*prompt[known:], *target[:-1]] for prompt, target in rows])
        places: list[int] = []
        for i, (prompt, target) in enumerate(rows):
            first = len(prompt) - known - 1  # the last prompt token predicts the first target token
            places += tree.places(i, first, first + len(target))
        return self.logits(self.hidden_of(tree, [prefix], wanted=places)), len(tree.ids)

    def forward(self, ids: Sequence[int], positions: Sequence[int], view: View) -> torch.Tensor:
        """Final hidden states of packed tokens: of the tokens that the view wants (t, C), or of all (T, C)."""
        self.computed_tokens += len(ids)
        with viewing(view):
            out = self.network.get_decoder()(
                input_ids=torch.tensor([list(ids)], device=self.device),
                # transformers passes a mask of four dimensions on as it is; the view does the masking.
                attention_mask=torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device),
                position_ids=torch.tensor([list(positions)], device=self.device),
                use_cache=False,
            )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden if view.wanted is None or self.narrows else hidden[view.wanted]

    def hidden_of(
        self,
        tree: Tree,
        after: Sequence[Prefix | None] = (None,),
        kept: list[KeysAndValues] | None = None,
        wanted: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Final hidden states of a tree's tokens in packed order, (T, C); with `wanted`, of those places only, (t, C).

        after: the prefix that stands before the rows of each family. kept: a list that receives the tokens' keys and
        values, (T, Hkv, D) each, one pair a layer.
        """
        lengths = [len(prefix.ids) if prefix is not None else 0 for prefix in after]
        offsets = [sum(lengths[:family]) for family in range(len(after))]
        past = sum(lengths)
        above = []
        for family, length in enumerate(lengths):
            tokens = [(node.start, node.start + node.length) for node in tree.nodes if node.family == family]
            if length and tokens:
                above.append((offsets[family], length, tokens[0][0], tokens[-1][1]))
        above += [(past + n.start, n.length, n.start + n.length, n.end) for n in tree.nodes]
        layers = None
        if present := [prefix.layers for prefix in after if prefix is not None and prefix.ids]:
            layers = present[0] if len(present) == 1 else _joined(present)
        places = torch.tensor(wanted, dtype=torch.long, device=self.device) if wanted is not None else None
        view = TreeView(blocks_of(tree.nodes, above, past, self.device), layers, kept, places)
        positions = [lengths[n.family] + n.position + i for n in tree.nodes for i in range(n.length)]
        return self.forward(tree.ids, positions, view)

    def compute(self, ids: Sequence[int], *, after: Prefix | None = None) -> Prefix:
        """Keys and values of a prefix, with gradients when gradients are on. after: its first part, where computed."""
        kept: list[KeysAndValues] = []
        self.hidden_of(grow([list(ids[len(after.ids) if after is not None else 0 :])]), [after], kept, [])
        return Prefix(tuple(ids), _joined([after.layers, tuple(kept)]) if after is not None else tuple(kept))

    def prefix(self, adapter: str | None, ids: Sequence[int]) -> Prefix:
        """Keys and values of a prefix under an adapter folder, from the prefix cache as far as it holds them."""
        wanted = tuple(ids)
        best, length = None, 0
        for key in [k for k in self._prefixes if k[0] == adapter]:
            equal = 0
            while equal < min(len(key[1]), len(wanted)) and key[1][equal] == wanted[equal]:
                equal += 1
            if equal > length:
                best, length = key, equal
        known = None
        if best is not None:
            known = self._prefixes[best] = self._prefixes.pop(best)  # the one used last is dropped last
            if length == len(wanted):
                return known.cut(length)
        with self.adapters.using(adapter), torch.inference_mode():
            computed = self.compute(wanted, after=known.cut(length) if known is not None else None)
        if best is not None and length == len(best[1]):
            del self._prefixes[best]  # the new one contains it
        self._prefixes[adapter, wanted] = computed
        while sum(p.bytes for p in self._prefixes.values()) > self.limits.prefix_bytes:
            del self._prefixes[next(iter(self._prefixes))]
        return computed

    def clear_prefix_cache(self) -> None:
        self._prefixes.clear()

    def forget_adapter(self, folder: str) -> None:
        super().forget_adapter(folder)
        self._prefixes = {key: prefix for key, prefix in self._prefixes.items() if key[0] != folder}


def _joined(parts: Sequence[Sequence[KeysAndValues]]) -> tuple[KeysAndValues, ...]:
    """Stretches of tokens one behind the other, layer by layer."""
    return tuple(
        (torch.cat([key for key, _ in layer]), torch.cat([value for _, value in layer]))
        for layer in zip(*parts, strict=True)
    )

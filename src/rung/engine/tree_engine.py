"""The fast path: every pass is one packed row of tokens without padding, and what rows share is computed once.

What each token sees is a View of `attention`. Keeps a prefix cache. Works for networks whose layers exchange
information between tokens by attention alone; `loading_check` finds out. Knows nothing of text, chat turns or files
other than adapter folders.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch

from rung.engine.attention import KeysAndValues, TreeView, View, viewing
from rung.engine.blocks import blocks_of
from rung.engine.engine import Engine
from rung.engine.gpu_kernels import on_device
from rung.engine.kv_cache import RowCache
from rung.engine.layers import fuse_layers, narrows
from rung.engine.masked_view import MOST_DENSE, MaskedView
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.prefix_tree import Tree, grow
from rung.engine.rope import long_factors
from rung.engine.tree_mask import TreeMask, mask_numbers
from rung.errors import first_line

_LEAST_READ = 256  # tokens of prompts that a pass may read in any case
_MOST_READ = 2_048  # in a fused pass: its kernel computes all pairs, also those that do not see each other


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


_Key = tuple[tuple[str | None, bool], tuple[int, ...]]
"""Of a prefix in the cache: ((adapter, long), ids)."""

_KEPT = 4  # times the largest prefix in use: so much is kept of those that were not asked for lately


class TreeEngine(Engine):
    """A network that was loaded with this package's attention. name: for messages."""

    path = "tree"

    def __init__(self, network: Any, name: str) -> None:
        super().__init__(network, name)  # layers whose weights are trained are not fused
        fuse_layers(network, self.adapters)
        self._prefixes: dict[_Key, Prefix] = {}
        self._asked: dict[_Key, int] = {}  # the call that used each prefix last
        self._calls = 0
        self.static_steps: Any = None
        """What `static_steps` keeps from call to call."""
        self.static_decoder: Any = None
        """What `static_decode` knows of the batches before."""
        self.calls: list[int] = []
        """Numbers of the layers that called attention in the last pass over a tree, in order."""
        # transformers passes a mask of four dimensions on as it is; the view does the masking.
        self._mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
        self._by_cache = "cache_position" in inspect.signature(network.get_decoder().forward).parameters

    @property
    def narrows(self) -> bool:
        """Whether the last layer computes the wanted tokens only."""
        return narrows(self.network)

    def scores(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], prefix: Prefix | None = None
    ) -> tuple[torch.Tensor, int]:
        hidden, tokens = self.target_states(rows, prefix)
        return self.logits(hidden), tokens

    def target_states(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], prefix: Prefix | None = None
    ) -> tuple[torch.Tensor, int]:
        """As `scores`, with the final hidden states (t, C) in place of the logits that are computed from them."""
        kinds = [self.is_long(len(prompt) + len(target)) for prompt, target in rows]
        if len(set(kinds)) > 1:
            assert prefix is None, "long and short rows share no prefix"
            return self._states_apart(rows, kinds)
        tree, places = target_tree(rows, len(prefix.ids) if prefix is not None else 0)
        return self.hidden_of(tree, [prefix], wanted=places, long=kinds[0]), len(tree.ids)

    def _states_apart(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], kinds: Sequence[bool]
    ) -> tuple[torch.Tensor, int]:
        """`target_states` of long and of short rows, which share nothing."""
        parts: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        computed = 0
        for kind in (False, True):
            chosen = [i for i, long in enumerate(kinds) if long == kind]
            hidden, tokens = self.target_states([rows[i] for i in chosen])
            computed += tokens
            for i, part in zip(chosen, hidden.split([len(rows[i][1]) for i in chosen]), strict=True):
                parts[i] = part
        return torch.cat(parts), computed

    def forward(self, ids: Sequence[int], positions: Sequence[int], view: View) -> torch.Tensor:
        """Final hidden states of packed tokens: of the tokens that the view wants (t, C), or of all (T, C)."""
        self.computed_tokens += len(ids)
        given = on_device(torch.tensor([list(ids), list(positions)]), self.device)
        return self.run(given[:1], given[1:], view)

    def read(self, cache: RowCache, new: Sequence[Sequence[int]]) -> torch.Tensor:
        """Final hidden states of the last of each row's new tokens, (B, C), which follow what the cache holds."""
        counts = [len(tokens) for tokens in new]
        positions = [end + i for end, count in zip(cache.ends, counts, strict=True) for i in range(count)]
        cache.expect(counts)
        return self.forward([token for tokens in new for token in tokens], positions, cache)

    def run(self, ids: torch.Tensor, positions: torch.Tensor, view: View) -> torch.Tensor:
        """As `forward`, of tensors (1, T) of the device, without counting tokens. Nothing waits for the device."""
        more = {"cache_position": positions[0]} if self._by_cache else {}
        with viewing(view), long_factors(view.long):
            out = self.network.get_decoder()(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                use_cache=False,
                **more,
            )
        hidden: torch.Tensor = out.last_hidden_state.squeeze(0)
        return hidden if view.wanted is None or self.narrows else hidden[view.wanted]

    def hidden_of(
        self,
        tree: Tree,
        after: Sequence[Prefix | None] = (None,),
        kept: list[KeysAndValues] | None = None,
        wanted: Sequence[int] | None = None,
        *,
        long: bool = False,
    ) -> torch.Tensor:
        """Final hidden states of a tree's tokens in packed order, (T, C); with `wanted`, of those places only, (t, C).

        after: the prefix that stands before the rows of each family. kept: a list that receives the tokens' keys and
        values, (T, Hkv, D) each, one pair a layer. long: whether all rows are long, as `is_long` says; else none is.
        """
        lengths = [len(prefix.ids) if prefix is not None else 0 for prefix in after]
        layers = None
        if present := [prefix.layers for prefix in after if prefix is not None and prefix.ids]:
            layers = present[0] if len(present) == 1 else _joined(present)
        if self.ways.fused:
            try:
                return self._hidden_fused(tree, lengths, layers, kept, wanted, long)
            except Exception as error:  # a kernel that is not there, or cannot be compiled
                if is_out_of_memory(error):
                    raise
                self.ways.give_up("fused", first_line(error))
                if kept is not None:
                    kept.clear()
        offsets = [sum(lengths[:family]) for family in range(len(after))]
        past = sum(lengths)
        above = []
        for family, length in enumerate(lengths):
            tokens = [(node.start, node.start + node.length) for node in tree.nodes if node.family == family]
            if length and tokens:
                above.append((offsets[family], length, tokens[0][0], tokens[-1][1]))
        above += [(past + n.start, n.length, n.start + n.length, n.end) for n in tree.nodes]
        places = on_device(torch.tensor(wanted, dtype=torch.long), self.device) if wanted is not None else None
        positions = tree.positions(lengths)
        all_positions = [*(place for length in lengths for place in range(length)), *positions]
        blocks = blocks_of(tree.nodes, above, past, self.device)
        view = TreeView(blocks, all_positions, layers, kept, places, long=long)
        self.calls, view.places = view.calls, wanted
        return self.forward(tree.ids, positions, view)

    def _hidden_fused(
        self,
        tree: Tree,
        known: Sequence[int],
        past: Sequence[KeysAndValues] | None,
        kept: list[KeysAndValues] | None,
        wanted: Sequence[int] | None,
        long: bool,
    ) -> torch.Tensor:
        """`hidden_of` with one fused attention a layer. known: tokens of each family's prefix; past: all of them."""
        numbers = mask_numbers(tree, known, tokens=len(tree.ids), past=sum(known))
        positions = numbers[3]
        mask = TreeMask.of(numbers, self.device)
        places = on_device(torch.tensor(wanted, dtype=torch.long), self.device) if wanted is not None else None
        view = MaskedView(mask, len(positions), max(positions), past, kept, places, long=long)
        self.calls, view.places = view.calls, wanted
        return self.forward(tree.ids, positions, view)

    def compute(self, ids: Sequence[int], *, after: Prefix | None = None, long: bool = False) -> Prefix:
        """Keys and values of a prefix, with gradients when gradients are on. after: its first part, where computed.

        long: as in `hidden_of`, of the prefix and of `after`. Without gradients a long one is read in parts.
        """
        known = len(after.ids) if after is not None else 0
        while not torch.is_grad_enabled() and len(ids) - known > (most := self.most_tokens(known)):
            known += most
            after = self._computed(ids[:known], after, long)
        return self._computed(ids, after, long)

    def most_tokens(self, known: int) -> int:
        """Tokens of prompts that one pass reads at most behind so many that are known, so that memory is bounded.

        A fused pass is short enough for a mask that is written out: no kernel is compiled for its length.
        """
        most = self.limits.scored_tokens
        if self.ways.fused:
            most = min(most, _MOST_READ, (isqrt(known * known + 4 * MOST_DENSE) - known) // 2)
        return max(_LEAST_READ, most)

    def _computed(self, ids: Sequence[int], after: Prefix | None, long: bool) -> Prefix:
        """`compute` in one pass."""
        kept: list[KeysAndValues] = []
        self.hidden_of(grow([list(ids[len(after.ids) if after is not None else 0 :])]), [after], kept, [], long=long)
        return Prefix(tuple(ids), _joined([after.layers, tuple(kept)]) if after is not None else tuple(kept))

    def prefix(self, adapter: str | None, ids: Sequence[int], *, long: bool = False) -> Prefix:
        """Keys and values of a prefix under an adapter folder, from the prefix cache as far as it holds them.

        long: as in `hidden_of`.
        """
        wanted = tuple(ids)
        best, length = self._longest_known(adapter, wanted, long)
        self._calls += 1
        known = None
        if best is not None:
            known = self._prefixes[best] = self._prefixes.pop(best)  # the one used last is dropped last
            self._asked[best] = self._calls
            if length == len(wanted):
                return known.cut(length)
        with self.adapters.using(adapter), torch.inference_mode():
            computed = self.compute(wanted, after=known.cut(length) if known is not None else None, long=long)
        if best is not None and length == len(best[1]):
            self._prefixes.pop(best, None)  # the new one contains it; making room may have dropped it
        self._prefixes[(adapter, long), wanted] = computed
        self._asked[(adapter, long), wanted] = self._calls
        self._drop_prefixes()
        return computed

    def _drop_prefixes(self) -> None:
        """Drops prefixes, the one used last at the end: beyond the limit; and those that no call of late asked for,
        beyond a few times the largest one that was asked for."""
        sizes = {key: prefix.bytes for key, prefix in self._prefixes.items()}
        oldest = self._calls - self.limits.prefix_calls
        lately = max((size for key, size in sizes.items() if self._asked.get(key, 0) > oldest), default=0)
        held = sum(sizes.values())
        for key, size in sizes.items():
            if held <= self.limits.prefix_bytes and (self._asked.get(key, 0) > oldest or held <= _KEPT * lately):
                break
            del self._prefixes[key]
            held -= size
        self._asked = {key: call for key, call in self._asked.items() if key in self._prefixes}

    def known_of(self, adapter: str | None, ids: Sequence[int], *, long: bool = False) -> int:
        """How many of these tokens the prefix cache holds."""
        return self._longest_known(adapter, tuple(ids), long)[1]

    def _longest_known(self, adapter: str | None, wanted: tuple[int, ...], long: bool) -> tuple[_Key | None, int]:
        """The prefix in the cache that begins like these ids for longest, and for how long."""
        best, length = None, 0
        for key in [k for k in self._prefixes if k[0] == (adapter, long)]:
            if key[1][: length + 1] != wanted[: length + 1]:  # many stand here, and most begin alike
                continue
            equal = next((i for i, (a, b) in enumerate(zip(key[1], wanted, strict=False)) if a != b), None)
            equal = min(len(key[1]), len(wanted)) if equal is None else equal
            if equal > length:
                best, length = key, equal
        return best, length

    def clear_prefix_cache(self) -> None:
        self._prefixes.clear()

    def forget_adapter(self, folder: str) -> None:
        super().forget_adapter(folder)
        self._prefixes = {key: prefix for key, prefix in self._prefixes.items() if key[0][0] != folder}


def target_tree(rows: Sequence[tuple[Sequence[int], Sequence[int]]], known: int = 0) -> tuple[Tree, list[int]]:
    """The tree of (prompt, target) rows, and the places of the tokens that predict the target tokens, in order.

    known: the first tokens of every prompt, which are not in the tree.
    """
    tree = grow([[*prompt[known:], *target[:-1]] for prompt, target in rows])
    places: list[int] = []
    for i, (prompt, target) in enumerate(rows):
        first = len(prompt) - known - 1  # the last prompt token predicts the first target token
        places += tree.places(i, first, first + len(target))
    return tree, places


def _joined(parts: Sequence[Sequence[KeysAndValues]]) -> tuple[KeysAndValues, ...]:
    """Stretches of tokens one behind the other, layer by layer."""
    return tuple(
        (torch.cat([key for key, _ in layer]), torch.cat([value for _, value in layer]))
        for layer in zip(*parts, strict=True)
    )

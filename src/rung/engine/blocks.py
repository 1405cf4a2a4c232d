"""Which tokens see which, as blocks of queries and keys. Knows positions, computes no scores.

A token sees its own node causally and every node above it whole. Under a sliding window of `w` tokens, the token at
position p sees keys from position p - w + 1 on. Positions count along the token's own row, prefix included.
Nodes of similar length are computed together: padding behind them changes nothing, since no token sees later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from rung.engine.gpu_kernels import on_device
from rung.engine.prefix_tree import Node

_BLOCK_SCORES = 1 << 20  # a head, computed together


@dataclass(frozen=True)
class Padded:
    """Stretches of packed tokens side by side, padded to one length.

    places: (n, length), the place of each token in the packed order. Padding has the place of its stretch's last token:
    what is no number in one stretch must not reach another. padding: (n, length), true where padding is; None where
    there is none. to, taken: packed places of the real tokens and their places in (n * length).
    """

    places: torch.Tensor
    padding: torch.Tensor | None
    to: torch.Tensor
    taken: torch.Tensor | None

    @staticmethod
    def of(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Padded:
        first, length = torch.tensor(starts)[:, None], torch.tensor(lengths)[:, None]
        columns = torch.arange(max(lengths))[None]
        real = columns < length
        places = torch.where(length > 0, first + columns.minimum(length - 1), 0)
        if bool(real.all()):
            places = on_device(places, device)
            return Padded(places, None, places.flatten(), None)
        taken = real.flatten().nonzero()[:, 0]
        sent = (places, ~real, places.flatten()[taken], taken)
        return Padded(*(on_device(part, device) for part in sent))

    def gather(self, rows: torch.Tensor, *, padding: float | None = None) -> torch.Tensor:
        """(T, H, W) to (n, H, length, W). padding: the value that padding gets; None: any value will do."""
        taken = rows.index_select(0, self.places.flatten()).view(*self.places.shape, *rows.shape[1:])
        if padding is not None and self.padding is not None:
            taken.masked_fill_(self.padding[..., None, None], padding)
        return taken.transpose(1, 2)

    def scatter(self, target: torch.Tensor, found: torch.Tensor) -> None:
        """The inverse of `gather`: writes (n, H, length, W) without its padding to target (T, H, W), in its type."""
        flat = found.transpose(1, 2).flatten(0, 1).to(target.dtype)
        target.index_copy_(0, self.to, flat if self.taken is None else flat.index_select(0, self.taken))


@dataclass(frozen=True)
class Block:
    """Neighbouring queries and neighbouring keys that are computed together.

    own: they are one node's tokens. No query sees a later key then. Otherwise all queries see all keys.
    unseen: (queries, keys), true where a query does not see a key; it replaces both rules. None: the rule holds.
    """

    first_key: int
    last_key: int  # one behind the last, as is last
    first: int
    last: int
    own: bool = False
    unseen: torch.Tensor | None = None

    @property
    def causal(self) -> bool:
        return self.own and self.unseen is None

    def pieces(self, scores: int) -> Iterator[Block]:
        """The block cut between queries, so that no piece has more scores a head. Nodes are short and stay whole."""
        keys, queries = self.last_key - self.first_key, self.last - self.first
        if self.own or keys * queries <= scores:
            yield self
            return
        step = max(1, scores // keys)
        for first in range(self.first, self.last, step):
            last = min(first + step, self.last)
            unseen = self.unseen[first - self.first : last - self.first] if self.unseen is not None else None
            yield replace(self, first=first, last=last, unseen=unseen)


@dataclass(frozen=True)
class Blocks:
    """All blocks of a pass. Queries are numbered from 0; keys are numbered with those of the past first.

    together: nodes of similar length, computed together, each as a Block with `own`; with the mask of each such node
    in its padded length, as in Block. single: the other blocks, nodes before those above them. past: number of keys
    before those of the queries. Each token's own node stands in exactly one of them.
    """

    together: tuple[tuple[Padded, torch.Tensor | None], ...]
    single: tuple[Block, ...]
    past: int


def blocks_of(
    nodes: Sequence[Node], ancestors: Sequence[tuple[int, int, int, int]], past: int, device: torch.device
) -> Blocks:
    """ancestors: (first key, number of keys, first query, query behind the last), of consecutive positions each."""
    parts = [[nodes[i] for i in part] for part in similar_in_length([node.length for node in nodes])]
    alone = [(node.start, node.start + node.length) for part in parts if len(part) == 1 for node in part]
    together = [Padded.of([n.start for n in part], [n.length for n in part], device) for part in parts if len(part) > 1]
    single = [Block(past + first, past + last, first, last, own=True) for first, last in alone]
    single += [Block(key, key + length, first, last) for key, length, first, last in ancestors if last > first]
    return Blocks(tuple((nodes, None) for nodes in together), tuple(single), past)


def similar_in_length(lengths: Sequence[int]) -> list[list[int]]:
    """Places in `lengths`, shortest first, in lists of stretches that are computed together.

    The number of scores grows with the square of the padded length. One more stretch joins a list while the padding
    adds less than half of the real scores and about the cost of starting another product.
    """
    parts: list[list[int]] = []
    real = 0
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        square = lengths[place] ** 2
        padded = (len(parts[-1]) + 1) * square if parts else 0
        if parts and padded <= min(1.5 * (real + square) + 10_000, _BLOCK_SCORES):
            parts[-1].append(place)
            real += square
        else:
            parts.append([place])
            real = square
    return parts


# ---- sliding windows --------------------------------------------------------------------------


def windowed(blocks: Blocks, positions: torch.Tensor, window: int, device: torch.device) -> Blocks:
    """The same tokens under a sliding window.

    Keys that no query of a block sees are dropped, keys that all see stay without a mask, the others get one.
    positions: of all keys, those of the past first, (past + T,), on the CPU. window: in tokens, at least 1.
    """
    together = tuple(
        (nodes, _band(nodes.places.shape[1], window, device) if nodes.places.shape[1] > window else None)
        for nodes, _ in blocks.together
    )
    single: list[Block] = []
    for block in blocks.single:
        length = block.last - block.first
        if block.own:
            single.append(replace(block, unseen=_band(length, window, device)) if length > window else block)
        else:
            keys = positions[block.first_key : block.last_key]
            queries = positions[blocks.past + block.first : blocks.past + block.last]
            single += _parts_seen(block, keys, queries - window, device)
    return Blocks(together, tuple(single), blocks.past)


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a token of a node sees no key: (length, length)."""
    places = torch.arange(length, device=device)
    behind = places[:, None] - places  # how far a key stands behind its query
    return (behind < 0) | (behind >= window)


def _parts_seen(block: Block, keys: torch.Tensor, bounds: torch.Tensor, device: torch.device) -> Iterator[Block]:
    """keys: their positions, consecutive. bounds: for each query the last position that it does not see."""
    begin, count = int(keys[0]), len(keys)
    hidden = min(max(int(bounds.min()) + 1 - begin, 0), count)  # so many keys are hidden from every query
    mixed = min(max(int(bounds.max()) + 1 - begin, 0), count)  # keys from this number on are seen by every query
    if mixed < count:
        yield replace(block, first_key=block.first_key + mixed)
    if hidden < mixed:
        seeing = (bounds < begin + mixed - 1).nonzero()[:, 0]
        first, last = int(seeing[0]), int(seeing[-1]) + 1
        unseen = keys[hidden:mixed] <= bounds[first:last, None]
        yield replace(
            block,
            first_key=block.first_key + hidden,
            last_key=block.first_key + mixed,
            first=block.first + first,
            last=block.first + last,
            unseen=on_device(unseen, device),
        )

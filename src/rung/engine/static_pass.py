"""A pass over a tree that trains, in tensors of fixed sizes and addresses: what a CUDA graph can record and replay.

Trees of many sizes are padded to few. What a pass reads lies in one tensor, which one transfer fills. Knows nothing of
losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rung.engine.buckets import bucket
from rung.engine.gpu_kernels import put
from rung.engine.masked_view import MaskedView, whole_blocks
from rung.engine.prefix_tree import Tree
from rung.engine.tree_engine import TreeEngine, target_tree
from rung.engine.tree_mask import BLOCK, TreeMask, mask_numbers
from rung.engine.ways import TRAINING

NO_TARGET = -100
"""The target of a token that has no loss, such as padding; torch's losses ignore it."""

_LEAST_WANTED = 64
_MOST_PADDED = (1.3, 2.0)  # times as many tokens, and as many wanted ones, as there are: so large a pass is used again

Size = tuple[int, int]
"""Tokens and wanted tokens of a pass, padding included."""


@dataclass(frozen=True)
class TargetRows:
    """Rows with targets as one tree. places: of the tokens that predict the target tokens, in the tree's order of
    tokens; targets: their ids."""

    tree: Tree
    places: tuple[int, ...]
    targets: tuple[int, ...]

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> TargetRows:
        """rows: (prompt, target) ids, neither empty."""
        tree, places = target_tree(rows)
        return TargetRows(tree, tuple(places), tuple(token for _, target in rows for token in target))

    @property
    def tokens(self) -> int:
        return len(self.tree.ids)


def size_for(rows: TargetRows, known: Sequence[Size]) -> Size:
    """The size of the pass for these rows: one that is known, if it is not much too large, else a new one."""
    needed = rows.tokens, len(rows.places)
    most = [ratio * max(n, least) for ratio, n, least in zip(_MOST_PADDED, needed, (BLOCK, _LEAST_WANTED), strict=True)]
    fitting = [size for size in known if all(n <= s <= m for n, s, m in zip(needed, size, most, strict=True))]
    return min(fitting) if fitting else (whole_blocks(needed[0]), bucket(needed[1], least=_LEAST_WANTED))


class StaticPass:
    """A pass of one size on an engine's network. targets: (t,), NO_TARGET where there is padding."""

    def __init__(self, engine: TreeEngine, size: Size) -> None:
        self._engine = engine
        self.tokens, self.wanted = size
        self._sizes = [self.tokens] * 4 + [self.wanted] * 2
        self._numbers = torch.zeros(sum(self._sizes), dtype=torch.long, device=engine.device)
        *rest, self._places, self.targets = self._numbers.split(self._sizes)
        self._ids, self._positions, self._first, self._end = rest

    def fill(self, rows: TargetRows) -> None:
        """Puts the rows into the tensors that `hidden` reads, in one transfer. On a GPU nothing waits for it."""
        first, end, _, positions = mask_numbers(rows.tree, (0,), tokens=self.tokens, past=0)
        padding, missing = self.tokens - rows.tokens, self.wanted - len(rows.places)
        numbers = [*rows.tree.ids, *rows.tree.ids[:1] * padding, *positions, *first, *end]
        numbers += [*rows.places, *(i % rows.tokens for i in range(missing))]  # places that stand there anyway
        numbers += [*rows.targets, *[NO_TARGET] * missing]
        put(torch.tensor(numbers, dtype=torch.long), self._numbers)

    def hidden(self, *, sparse: bool = False, often: bool = False) -> torch.Tensor:
        """Final hidden states of the wanted tokens, (t, C). Records gradients; may be recorded itself.

        sparse, often: as in MaskedView.
        """
        first, end, positions = (part.to(torch.int32) for part in (self._first, self._end, self._positions))
        # Each call makes a view of its own: what a view keeps must be made within a recording.
        mask = TreeMask(first, end, positions, positions)
        view = MaskedView(mask, self.tokens, self.tokens - 1, wanted=self._places, sparse=sparse, often=often)
        return self._engine.run(self._ids[None], self._positions[None], view)


def can_be_static(engine: Any) -> bool:
    """Whether passes of an engine's network can be static: on the tree path, with one fused attention a layer, and
    without rotations that depend on the longest row, for which Python waits."""
    if not isinstance(engine, TreeEngine) or not (engine.ways.takes("static", TRAINING) and engine.ways.fused):
        return False
    kinds = [getattr(module, "rope_type", None) for module in engine.network.modules()]
    names = {str(name) for kind in kinds for name in (kind.values() if isinstance(kind, dict) else [kind])}
    return engine.rope_switch is None and not names & {"dynamic", "longrope"}

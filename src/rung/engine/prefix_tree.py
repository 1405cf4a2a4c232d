"""Rows of tokens as a tree of their shared prefixes.

A thousand prompts share an instruction. Some of them also share demos, a few share passages, and labels that are
scored behind one prompt share all of it. Each shared stretch becomes one node. The nodes are packed one behind the
other, depth first: the tokens below any node are neighbours, nothing is padded, and nothing that rows share is
computed twice. `attention` computes attention over the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_SHARED = 4  # tokens; a shorter common stretch does not pay for a node of its own
_LONGEST_NODE = 256  # tokens; longer stretches are chained, so that no block of scores grows with their square


@dataclass(frozen=True)
class Node:
    """A stretch of tokens.

    start: place of its first token in the packed order. end: place behind the last token of this node and of all nodes
    below it. position: place of its first token within its rows. parent: index of the node above, or -1.
    rows: number of rows that pass through this node or end here. family: rows of different families share nothing.
    """

    start: int
    length: int
    end: int
    position: int
    parent: int
    rows: int
    family: int


@dataclass(frozen=True)
class Tree:
    """nodes: depth first. ids: tokens in packed order. chains: for each row, its nodes from the top."""

    nodes: tuple[Node, ...]
    ids: tuple[int, ...]
    chains: tuple[tuple[int, ...], ...]

    def places(self, row: int, first: int, last: int) -> list[int]:
        """Packed places of a row's tokens from number `first` up to, but not including, number `last`."""
        found: list[int] = []
        for node in (self.nodes[i] for i in self.chains[row]):
            begin, stop = max(0, first - node.position), min(node.length, last - node.position)
            found += range(node.start + begin, node.start + stop)
        return found

    def positions(self, known: Sequence[int] = (0,)) -> list[int]:
        """The place of every packed token within its row. known: for each family the tokens before its rows."""
        return [known[n.family] + n.position + i for n in self.nodes for i in range(n.length)]


def grow(rows: Sequence[Sequence[int]], *, families: Sequence[int] | None = None) -> Tree:
    """The tree of the rows, none of which is empty. families: one number a row; None: all rows are of one family."""
    kinds = list(families) if families is not None else [0] * len(rows)
    grower = _Grower(rows, kinds)
    for kind in sorted(set(kinds)):
        grower.add(sorted((i for i, k in enumerate(kinds) if k == kind), key=lambda i: (tuple(rows[i]), i)), 0, -1, ())
    ends = [node.end for node in grower.nodes]
    for i in reversed(range(len(ends))):  # children stand behind their parents
        if (parent := grower.nodes[i].parent) >= 0:
            ends[parent] = max(ends[parent], ends[i])
    nodes = (
        Node(n.start, n.length, end, n.position, n.parent, n.rows, n.family)
        for n, end in zip(grower.nodes, ends, strict=True)
    )
    return Tree(tuple(nodes), tuple(grower.ids), tuple(grower.chains))


class _Grower:
    def __init__(self, rows: Sequence[Sequence[int]], families: Sequence[int]) -> None:
        self._rows = rows
        self._families = families
        self.nodes: list[Node] = []
        self.ids: list[int] = []
        self.chains: list[tuple[int, ...]] = [()] * len(rows)

    def add(self, members: list[int], depth: int, parent: int, chain: tuple[int, ...]) -> None:
        """Adds the tokens beyond `depth` of the rows `members`, which are sorted and equal up to `depth`."""
        rows = self._rows
        shared = _equal_up_to(rows[members[0]], rows[members[-1]], depth)
        ends_here = len(rows[members[0]]) == shared  # the first in order is the shortest of equal rows
        if shared - depth >= _LEAST_SHARED or ends_here:
            while depth < shared:
                start, length = len(self.ids), min(_LONGEST_NODE, shared - depth)
                family = self._families[members[0]]
                self.nodes.append(Node(start, length, start + length, depth, parent, len(members), family))
                self.ids += rows[members[0]][depth : depth + length]
                parent = len(self.nodes) - 1
                chain = (*chain, parent)
                depth += length
        below: dict[int, list[int]] = {}
        for row in members:
            if len(rows[row]) == depth:
                self.chains[row] = chain
            else:
                below.setdefault(rows[row][shared], []).append(row)
        # Single rows first, by length, so that neighbours have similar lengths.
        for group in sorted(below.values(), key=lambda g: (len(g) > 1, len(rows[g[0]]) if len(g) == 1 else 0)):
            self.add(group, depth, parent, chain)


def _equal_up_to(first: Sequence[int], last: Sequence[int], depth: int) -> int:
    """Length of the common prefix of two rows, of which `depth` tokens are already known to be equal."""
    limit = min(len(first), len(last))
    while depth < limit and first[depth] == last[depth]:
        depth += 1
    return depth


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix that all rows share, at least one token short of the shortest row."""
    first, last = min(rows, key=tuple), max(rows, key=tuple)  # what these share in their order, all rows share
    return min(_equal_up_to(first, last, 0), min(len(row) for row in rows) - 1)

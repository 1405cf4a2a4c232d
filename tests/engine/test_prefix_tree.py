from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.engine.prefix_tree import common_prefix_length, grow

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=12)


@given(ROWS, st.data())
def test_every_row_reads_back_and_sees_only_itself(rows: list[list[int]], data: st.DataObject) -> None:
    families = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    tree = grow(rows, families=families)
    assert sum(node.length for node in tree.nodes) == len(tree.ids) <= sum(len(row) for row in rows)
    for i, row in enumerate(rows):
        places = tree.places(i, 0, len(row))
        assert [tree.ids[place] for place in places] == row
        assert tree.places(i, 1, len(row)) == places[1:]
        for above, node in zip(tree.chains[i], tree.chains[i][1:], strict=False):
            assert tree.nodes[node].parent == above
            # Everything below a node stands directly behind it.
            begins = tree.nodes[above].start + tree.nodes[above].length
            assert begins <= tree.nodes[node].start < tree.nodes[node].end <= tree.nodes[above].end
        assert {tree.nodes[node].family for node in tree.chains[i]} == {families[i]}
    for i, node in enumerate(tree.nodes):
        assert node.rows == sum(i in chain for chain in tree.chains)


def test_what_rows_begin_with_stands_once() -> None:
    shared = list(range(20))
    tree = grow([[*shared, 30, 31], [*shared, 40], [*shared, 40, 50, 51, 52, 53, 54]])
    assert list(tree.ids).count(7) == 1
    assert tree.nodes[0].rows == 3 and tree.nodes[0].length == 20


def test_long_stretches_are_chained() -> None:
    tree = grow([list(range(600))])
    assert [node.length for node in tree.nodes] == [256, 256, 88]
    assert [node.end for node in tree.nodes] == [600, 600, 600]


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2], [1, 2, 3]], 1),
        ([[1, 2, 3]], 2),
        ([[5]], 0),
        ([[1, 2], [2, 2]], 0),
        ([[1, 9, 2], [1, 3, 2], [1, 9, 2]], 1),
    ],
)
def test_the_common_prefix_is_the_longest_and_leaves_every_row_a_token(rows: list[list[int]], length: int) -> None:
    assert common_prefix_length(rows) == length

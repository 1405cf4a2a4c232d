from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.engine.attention_kernels import attend, attend_back
from rung.engine.blocks import Block, Blocks, Padded, blocks_of, windowed
from rung.engine.prefix_tree import Tree, grow

CPU = torch.device("cpu")
LONG = [5, 6, 7, 8, 9] * 120  # three nodes in a chain


def blocks_behind(tree: Tree, known: list[int]) -> tuple[Blocks, torch.Tensor]:
    """The blocks of a tree behind prefixes of so many tokens, one a family, and the positions of all keys."""
    past, above, first = sum(known), [], 0
    for family, length in enumerate(known):
        tokens = [place for n in tree.nodes if n.family == family for place in range(n.start, n.start + n.length)]
        if length and tokens:
            above.append((first, length, tokens[0], tokens[-1] + 1))
        first += length
    above += [(past + n.start, n.length, n.start + n.length, n.end) for n in tree.nodes]
    positions = [place for length in known for place in range(length)] + tree.positions(known)
    return blocks_of(tree.nodes, above, past, CPU), torch.tensor(positions)


def times_seen(blocks: Blocks, queries: int, keys: int) -> torch.Tensor:
    """How often each query sees each key in all blocks, (queries, keys)."""
    seen = torch.zeros(queries, keys, dtype=torch.long)
    for nodes, unseen in blocks.together:
        length = nodes.places.shape[1]
        visible = torch.ones(length, length).tril().bool() if unseen is None else ~unseen
        for row, places in enumerate(nodes.places):
            real = length if nodes.padding is None else int((~nodes.padding[row]).sum())
            own = places[:real]
            seen[own[:, None], blocks.past + own] += visible[:real, :real].long()
    for whole in blocks.single:
        for block in whole.pieces(50):
            shape = (block.last - block.first, block.last_key - block.first_key)
            visible = torch.ones(shape).bool() if block.unseen is None else ~block.unseen
            visible = visible.tril() if block.causal else visible
            seen[block.first : block.last, block.first_key : block.last_key] += visible.long()
    return seen


def expected_seen(tree: Tree, rows: int, families: list[int], known: list[int], window: int) -> torch.Tensor:
    """Row by row: a token sees its own row's tokens, prefix included, up to itself and within the window."""
    past = sum(known)
    seen = torch.zeros(len(tree.ids), past + len(tree.ids), dtype=torch.long)
    for row in range(rows):
        before = sum(known[: families[row]])
        keys = [before + i for i in range(known[families[row]])]
        keys += [past + place for place in tree.places(row, 0, len(tree.ids))]
        for number in range(known[families[row]], len(keys)):
            seen[keys[number] - past, keys[max(0, number - window + 1) : number + 1]] = 1
    return seen


ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=16), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 25), st.tuples(st.integers(0, 12), st.integers(0, 12)), st.data())
def test_every_pair_within_the_window_is_in_one_block(
    rows: list[list[int]], window: int, known: tuple[int, int], data: st.DataObject
) -> None:
    families = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    tree = grow(rows, families=families)
    blocks, positions = blocks_behind(tree, list(known))
    found = windowed(blocks, positions, window, CPU)
    shape = len(tree.ids), sum(known) + len(tree.ids)
    assert times_seen(found, *shape).equal(expected_seen(tree, len(rows), families, list(known), window))
    assert times_seen(blocks, *shape).equal(expected_seen(tree, len(rows), families, list(known), 1000))


@pytest.mark.parametrize("window", [1, 100, 256, 300, 599, 600])
def test_a_long_row_sees_its_window_across_nodes(window: int) -> None:
    rows = [LONG, [*LONG, 1, 2], [*LONG[:300], 3]]
    tree = grow(rows)
    blocks, positions = blocks_behind(tree, [0])
    found = times_seen(windowed(blocks, positions, window, CPU), len(tree.ids), len(tree.ids))
    assert found.equal(expected_seen(tree, 3, [0, 0, 0], [0], window))


def test_hidden_keys_are_not_computed_and_visible_ones_need_no_mask() -> None:
    tree = grow([[1, 2, 3, 4]])
    blocks, positions = blocks_behind(tree, [100])
    own, *above = windowed(blocks, positions, 20, CPU).single
    assert own == Block(100, 104, 0, 4, own=True)
    # Queries stand at 100 to 103: keys from 84 on are seen by all of them, keys from 81 on by some.
    assert [(b.first_key, b.last_key, b.unseen is None) for b in above] == [(84, 100, True), (81, 84, False)]
    # The last query sees none of the keys with a mask.
    assert (above[1].first, above[1].last) == (0, 3)


@pytest.mark.parametrize("cap", [None, 1.5])
def test_a_query_that_sees_nothing_gets_zeros_and_passes_no_gradient_on(cap: float | None) -> None:
    query, key, value, grad = (torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(i)) for i in range(4))
    unseen = torch.tensor([[True, True, True], [False, True, False], [True, True, False]])
    out, logsum = attend(query, key, value, scaling=0.5, unseen=unseen, cap=cap)
    assert out[:, :, 0].eq(0).all() and logsum[:, :, 0].eq(float("-inf")).all()
    assert torch.allclose(out[:, :, 2], value[:, :, 2])
    elsewhere = torch.logaddexp(logsum, torch.zeros_like(logsum))  # other blocks give every query something to see
    found = attend_back(grad, query, key, value, out, elsewhere, scaling=0.5, unseen=unseen, cap=cap)
    assert all(part.isfinite().all() for part in found) and found[0][:, :, 0].eq(0).all()
    assert found[1][:, :, 1].eq(0).all() and found[2][:, :, 1].eq(0).all()


def test_a_stretch_is_padded_with_itself() -> None:
    rows = torch.arange(6.0)[:, None, None]
    rows[0] = float("nan")
    padded = Padded.of([0, 1, 4], [1, 3, 2], rows.device)
    gathered = padded.gather(rows)[:, 0, :, 0]  # (3, 3)
    assert gathered[1:].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 5.0]]
    found = torch.zeros_like(rows)
    padded.scatter(found, padded.gather(rows))
    assert found[1:].equal(rows[1:])

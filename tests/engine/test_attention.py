from __future__ import annotations

from typing import Any

import pytest
import torch

from rung.engine import attention, attention_kernels
from rung.engine.attention import TreeView
from rung.engine.blocks import blocks_of, similar_in_length
from rung.engine.layers import unfuse_layers
from rung.engine.prefix_tree import common_prefix_length, grow
from rung.testing import tiny_model


def ids(n: int, seed: int) -> list[int]:
    return [int(i) for i in torch.randint(3, 260, (n,), generator=torch.Generator().manual_seed(seed))]


A, B, C = ids(9, 0), ids(7, 1), ids(300, 2)
ROWS: dict[str, list[list[int]]] = {
    "one prefix, mixed lengths": [A + ids(n, n) for n in (5, 1, 8, 3)],
    "one row": [A],
    "one row of one token": [[5]],
    "nothing in common": [ids(n, n + 20) for n in (4, 2, 6)],
    "two levels": [A + B + ids(3, 3), A + B + ids(5, 4), A + ids(4, 5), A + ids(9, 6), ids(6, 7)],
    "a row that is another's prefix": [A, A + B, A + B + ids(2, 8)],
    "the same row twice": [A + B, A + B, A + ids(3, 9)],
    "a prefix that is cut into nodes": [C + ids(3, 10), C + ids(1, 11), C + C],
}


@pytest.fixture(params=["flash blocks", "blocks written out", "one kernel a layer"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    """By blocks with the flash kernel of CPUs, by blocks as any device computes them, and as a GPU does."""
    monkeypatch.setattr(tiny.engine.ways, "fused", request.param == "one kernel a layer")
    if request.param == "blocks written out":
        for module in (attention, attention_kernels):
            monkeypatch.setattr(module, "is_flash", lambda query: False)


def plain_logits(network: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """Each row alone through ordinary transformers, (len, V)."""
    return [network(torch.tensor([row])).logits[0] for row in rows]


def tree_logits(model: Any, rows: list[list[int]], known: int = 0) -> list[torch.Tensor]:
    """known: so many tokens of every row are computed first, as a prefix."""
    prefix = model.engine.compute(rows[0][:known]) if known else None
    tree = grow([row[known:] for row in rows])
    logits = model.engine.logits(model.engine.hidden_of(tree, [prefix]))
    return [logits[tree.places(i, 0, len(row) - known)] for i, row in enumerate(rows)]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ROWS)
def test_logits_equal_a_plain_forward(tiny: Any, plain_network: Any, name: str) -> None:
    with torch.no_grad():
        for ours, theirs in zip(tree_logits(tiny, ROWS[name]), plain_logits(plain_network, ROWS[name]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("known", [0, 4, 9])
@pytest.mark.parametrize("name", [name for name in ROWS if name != "one row of one token"])
def test_gradients_equal_a_plain_forwards_through_the_prefix_too(
    tiny: Any, plain_network: Any, name: str, known: int
) -> None:
    rows = ROWS[name]
    known = min(known, common_prefix_length(rows))
    weights = [torch.randn(len(row), 1, generator=torch.Generator().manual_seed(9)) for row in rows]
    found = {}
    for which, network in {"ours": tiny.network, "plain": plain_network}.items():
        network.requires_grad_(True)
        logits = tree_logits(tiny, rows, known) if which == "ours" else plain_logits(network, rows)
        logits = [row[known:] for row in logits] if which == "plain" else logits
        loss = sum((torch.log_softmax(r, -1)[:, :50] * w[known:]).sum() for r, w in zip(logits, weights, strict=True))
        parameters = dict(network.named_parameters())
        assert isinstance(loss, torch.Tensor)
        found[which] = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    assert set(found["ours"]) == set(found["plain"])
    for key, theirs in found["plain"].items():
        error = (found["ours"][key] - theirs).abs().max() / theirs.abs().max()
        assert error < 1e-4, (key, float(error))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("wanted", [[], [3], [0, 5, 2], list(range(17))])
def test_hidden_states_of_some_tokens_are_those_of_all(fused: bool, wanted: list[int]) -> None:
    model = tiny_model()
    if not fused:
        unfuse_layers(model.network)
    tree = grow(ROWS["one prefix, mixed lengths"])
    with torch.no_grad():
        whole = model.engine.hidden_of(tree)
        torch.testing.assert_close(model.engine.hidden_of(tree, wanted=wanted), whole[wanted], rtol=1e-5, atol=1e-5)


def test_a_row_is_the_same_alone_and_among_others(tiny: Any) -> None:
    rows = ROWS["two levels"]
    with torch.no_grad():
        together = tree_logits(tiny, rows)
        alone = [tree_logits(tiny, [row])[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [([3, 3, 3], [[0, 1, 2]]), ([200, 10, 11], [[1, 2], [0]]), ([7], [[0]]), ([5, 4, 300, 301], [[1, 0], [2, 3]])],
)
def test_stretches_similar_in_length_are_computed_together(lengths: list[int], parts: list[list[int]]) -> None:
    assert similar_in_length(lengths) == parts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_many_blocks_add_up_to_is_rounded_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a GPU, where blocks are computed in the type of the network.
    monkeypatch.setattr(attention, "block_type", lambda rows: rows.dtype)
    for module in (attention, attention_kernels):
        monkeypatch.setattr(module, "is_flash", lambda query: False)
    nodes = grow([list(range(2_000))]).nodes  # a chain
    above = [(n.start, n.length, n.start + n.length, n.end) for n in nodes]
    view = TreeView(blocks_of(nodes, above, 0, torch.device("cpu")), range(2_000))
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2_000, 2, 16, generator=draw).to(dtype) for _ in range(3))
    value += 4.0  # rounded weights even out
    ours = view.attend(0, query, key, value, 0.25)
    q, k, v = (rows.double().transpose(0, 1) for rows in (query, key, value))
    scores = (q @ k.mT * 0.25).masked_fill(torch.ones(2_000, 2_000, dtype=torch.bool).triu(1), float("-inf"))
    exact = (scores.softmax(-1) @ v).transpose(0, 1)
    assert ours.dtype == dtype
    rounding = (exact.to(dtype) - exact).norm()
    assert (ours - exact).norm() < 1.2 * rounding

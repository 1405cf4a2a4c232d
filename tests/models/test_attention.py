from __future__ import annotations

from typing import Any

import pytest
import torch

from rung.models.attention import causal_mask, common_beginning

CASES = {
    "rows of mixed lengths": (9, [5, 1, 8, 3]),
    "one row": (7, [6]),
    "a beginning of one token": (1, [4, 2]),
    "one own token each": (12, [1, 1, 1]),
    "one row of one token": (3, [1]),
}


def ids(n: int, seed: int) -> list[int]:
    return [int(i) for i in torch.randint(3, 260, (n,), generator=torch.Generator().manual_seed(seed))]


def case(name: str) -> tuple[list[int], list[list[int]]]:
    shared, lengths = CASES[name]
    return ids(shared, 0), [ids(n, i + 1) for i, n in enumerate(lengths)]


def plain_logits(network: Any, beginning: list[int], own: list[list[int]]) -> list[torch.Tensor]:
    """Each row alone through ordinary transformers; logits at its own tokens, (len, V)."""
    return [network(torch.tensor([beginning + row])).logits[0, len(beginning) :] for row in own]


def shared_logits(model: Any, beginning: list[int], own: list[list[int]]) -> list[torch.Tensor]:
    hidden = model.hidden_after(model.compute_beginning(beginning) if beginning else None, own)
    assert hidden.shape[:2] == (len(own), max(len(row) for row in own))
    return [model.network.get_output_embeddings()(hidden[i, : len(row)]) for i, row in enumerate(own)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [True, False])
def test_logits_equal_a_plain_forward(tiny: Any, plain_network: Any, name: str, share: bool) -> None:
    beginning, own = case(name)
    if not share:
        beginning, own = [], [beginning + row for row in own]
    with torch.no_grad():
        for ours, theirs in zip(
            shared_logits(tiny, beginning, own), plain_logits(plain_network, beginning, own), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_a_plain_forwards_through_the_beginning_too(tiny: Any, plain_network: Any, name: str) -> None:
    beginning, own = case(name)
    weights = [torch.randn(len(row), 1, generator=torch.Generator().manual_seed(9)) for row in own]
    found = {}
    for which, network in {"ours": tiny.network, "plain": plain_network}.items():
        logits = shared_logits(tiny, beginning, own) if which == "ours" else plain_logits(network, beginning, own)
        loss = sum((torch.log_softmax(row, -1)[:, :50] * w).sum() for row, w in zip(logits, weights, strict=True))
        parameters = dict(network.named_parameters())
        assert isinstance(loss, torch.Tensor)
        found[which] = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    assert set(found["ours"]) == set(found["plain"])
    for key, theirs in found["plain"].items():
        assert theirs.abs().max() > 0
        error = (found["ours"][key] - theirs).abs().max() / theirs.abs().max()
        assert error < 1e-5, (key, float(error))


def test_padding_never_changes_a_row(tiny: Any) -> None:
    beginning, own = case("rows of mixed lengths")
    with torch.no_grad():
        together = shared_logits(tiny, beginning, own)
        alone = [shared_logits(tiny, beginning, [row])[0] for row in own]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_mask_shows_each_token_what_stands_before_it_in_its_row() -> None:
    mask = causal_mask(torch.tensor([3, 1]), 3, torch.float32)
    assert mask.shape == (2, 1, 3, 3)
    assert (mask[0, 0] == 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert (mask[1, 0] == 0).tolist() == [[True, False, False], [True, True, False], [True, False, True]]


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
def test_the_common_beginning_is_the_longest_and_leaves_every_row_a_token(rows: list[list[int]], length: int) -> None:
    assert common_beginning(rows) == length

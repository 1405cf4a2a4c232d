from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from rung.engine import masked_view
from rung.engine.attention import KeysAndValues, TreeView
from rung.engine.blocks import blocks_of
from rung.engine.masked_view import MaskedView
from rung.engine.prefix_tree import Tree, grow
from rung.engine.tree_mask import TreeMask, mask_numbers
from rung.testing import tiny_model

HEADS, KEY_HEADS, WIDTH = 4, 2, 16
CPU = torch.device("cpu")
START = list(range(40))
ROWS = {
    "one prefix": [START + [100 + i] * (3 + i) for i in range(4)],
    "two levels": [START + [7] * 9 + [1, 2], START + [7] * 9 + [3], [*START, 8, 9], [5, 6]],
    "one row": [START],
    "long nodes": [[*range(300), 1], [*range(300), 2, 3]],
}


def mask_of(tree: Tree, known: list[int], tokens: int | None = None, past: int | None = None) -> TreeMask:
    return TreeMask.of(
        mask_numbers(tree, known, tokens=tokens or len(tree.ids), past=sum(known) if past is None else past), CPU
    )


def by_definition(tree: Tree, known: list[int], window: int | None) -> torch.Tensor:
    """(T, S), node by node: a token sees its own node up to itself, all nodes above, and its family's prefix."""
    before = sum(known)
    positions = tree.positions(known)
    seen = torch.zeros(len(tree.ids), before + len(tree.ids), dtype=torch.bool)
    for node in tree.nodes:
        for query in range(node.start, node.start + node.length):
            start = sum(known[: node.family])
            keys = [(start + i, i) for i in range(known[node.family])]
            above = node.parent
            while above >= 0:
                other = tree.nodes[above]
                keys += [(before + place, positions[place]) for place in range(other.start, other.start + other.length)]
                above = other.parent
            keys += [(before + place, positions[place]) for place in range(node.start, query + 1)]
            for key, position in keys:
                seen[query, key] = window is None or positions[query] - position < window
    return seen


@pytest.mark.parametrize("window", [None, 5, 64])
@pytest.mark.parametrize(
    ("rows", "families", "known"),
    [*((rows, None, [0]) for rows in ROWS.values()), (ROWS["one prefix"], [0, 1, 1, 0], [30, 7])],
)
def test_a_mask_says_what_the_tree_says(
    rows: list[list[int]], families: list[int] | None, known: list[int], window: int | None
) -> None:
    tree = grow(rows, families=families)
    assert torch.equal(mask_of(tree, known).dense(window), by_definition(tree, known, window))


@pytest.mark.parametrize("window", [None, 50])
def test_blocks_hold_all_that_is_seen_and_full_ones_need_no_mask(window: int | None) -> None:
    tree, known = grow([list(range(300)) + [i] * 70 for i in range(1000, 1004)]), [200]
    mask = mask_of(tree, known, tokens=640, past=256)
    seen = mask.dense(window).unflatten(0, (-1, 128)).unflatten(2, (-1, 128))
    blocks = mask.blocks(window)
    for row in range(seen.shape[0]):
        partial = blocks.kv_indices[0, 0, row, : blocks.kv_num_blocks[0, 0, row]].tolist()
        full = blocks.full_kv_indices[0, 0, row, : blocks.full_kv_num_blocks[0, 0, row]].tolist()
        for column in range(seen.shape[2]):
            part = seen[row, :, column]
            assert bool(part.all()) or column not in full
            assert column in (*partial, *full) or not bool(part.any())
    assert blocks.full_kv_num_blocks.sum() > 0 or window


def drawn(tokens: int, heads: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, heads, WIDTH, generator=torch.Generator().manual_seed(seed))


def attended(view: Any, given: list[torch.Tensor], how: dict[str, Any]) -> tuple[torch.Tensor, list[Any]]:
    leaves = [rows.clone().requires_grad_() for rows in given]
    if how.get("sinks") is not None:
        how = {**how, "sinks": how["sinks"].clone().requires_grad_()}
        leaves.append(how["sinks"])
    out = view.attend(0, *leaves[:3], 0.3, **how)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    return out.detach(), list(torch.autograd.grad((out * weights).sum(), leaves))


@pytest.mark.parametrize(
    "how",
    [{}, {"window": 12}, {"cap": 0.7}, {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}, {"cap": 1.5, "window": 45}],
)
@pytest.mark.parametrize("known", [0, 20])
@pytest.mark.parametrize("name", ROWS)
def test_one_kernel_computes_what_blocks_compute(name: str, known: int, how: dict[str, Any]) -> None:
    tree = grow(ROWS[name])
    tokens = len(tree.ids)
    past: list[KeysAndValues] | None = None
    above = [(known + n.start, n.length, n.start + n.length, n.end) for n in tree.nodes]
    if known:
        past = [(drawn(known, KEY_HEADS, 1), drawn(known, KEY_HEADS, 2))]
        above.append((0, known, 0, tokens))
    positions = [*range(known), *tree.positions([known])]
    plain = TreeView(blocks_of(tree.nodes, above, known, CPU), positions, past)
    ours = MaskedView(mask_of(tree, [known]), tokens, max(positions), past)
    given = [drawn(tokens, HEADS, 3), drawn(tokens, KEY_HEADS, 4), drawn(tokens, KEY_HEADS, 6)]
    (out, grads), (expected, expected_grads) = attended(ours, given, how), attended(plain, given, how)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_heads_are_written_out_in_turn_where_all_at_once_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grow(ROWS["two levels"])
    tokens = len(tree.ids)
    given = [drawn(tokens, heads, seed) for heads, seed in ((HEADS, 3), (KEY_HEADS, 4), (KEY_HEADS, 6))]
    how = {"cap": 0.7, "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}
    expected, grads = attended(MaskedView(mask_of(tree, [0]), tokens, 100), given, how)
    monkeypatch.setattr(masked_view, "_MOST_SCORES", 3 * tokens * tokens)
    found, more = attended(MaskedView(mask_of(tree, [0]), tokens, 100), given, how)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(more, grads)


def test_padding_changes_no_token() -> None:
    tree, known = grow(ROWS["two levels"]), 20
    tokens = len(tree.ids)
    past = [(drawn(known, KEY_HEADS, 1), drawn(known, KEY_HEADS, 2))]
    given = [drawn(tokens, HEADS, 3), drawn(tokens, KEY_HEADS, 4), drawn(tokens, KEY_HEADS, 6)]
    exact, _ = attended(MaskedView(mask_of(tree, [known]), tokens, 100, past), given, {"window": 30})
    padded = MaskedView(mask_of(tree, [known], tokens=tokens + 9, past=known + 4), tokens, 100, past)
    found, _ = attended(padded, given, {"window": 30})
    torch.testing.assert_close(found, exact)


def test_a_mask_for_cudnn_holds_no_infinities_and_hides_as_much() -> None:
    tree = grow(ROWS["two levels"])
    tokens = len(tree.ids)
    given = [drawn(tokens, HEADS, 3), drawn(tokens, KEY_HEADS, 4), drawn(tokens, KEY_HEADS, 6)]
    mask = mask_of(tree, [0], tokens=128)
    usual, often = (MaskedView(mask, tokens, 100, often=chosen) for chosen in (False, True))
    for ours, theirs in zip(attended(often, given, {}), attended(usual, given, {}), strict=True):
        torch.testing.assert_close(ours, theirs)
    for dtype in (torch.bfloat16, torch.float16):
        assert MaskedView(mask, tokens, 100, often=True)._written_out(None, dtype).isfinite().all()


@pytest.mark.parametrize("how", [{}, {"window": 64}, {"cap": 0.7}])
def test_flex_attention_computes_it_too(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompiled here: it is made for GPUs, and its backward pass is only there."""
    tree = grow(ROWS["one prefix"])
    tokens = len(tree.ids)
    past = [(drawn(20, KEY_HEADS, 1), drawn(20, KEY_HEADS, 2))]
    given = [drawn(tokens, HEADS, 3), drawn(tokens, KEY_HEADS, 4), drawn(tokens, KEY_HEADS, 6)]
    view = MaskedView(mask_of(tree, [20]), tokens, 100, past)
    expected = view.attend(0, *given, 0.3, **how)
    monkeypatch.setattr(masked_view, "compiled_flex", lambda: masked_view._flex_with_sums)
    query, key, value = view._laid_out(0, *given, view._blocked)
    assert query.shape[2] == 128 and key.shape[2] == 256
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is not compiled
        out = masked_view._flex(query, key, value, view._in_blocks(how.get("window")), 0.3, how.get("cap"), None)
    torch.testing.assert_close(out[0].transpose(0, 1)[:tokens], expected, rtol=1e-4, atol=1e-5)


def test_a_padded_mask_says_of_tokens_what_the_exact_one_says() -> None:
    tree = grow(ROWS["two levels"])
    tokens = len(tree.ids)
    exact, padded = mask_of(tree, [20]).dense(30), mask_of(tree, [20]).padded(tokens + 9, 24)
    found = padded.dense(30)
    assert torch.equal(found[:tokens, :20], exact[:, :20]) and torch.equal(
        found[:tokens, 24 : 24 + tokens], exact[:, 20:]
    )
    assert found[tokens:].sum() == 9 and found.sum() == exact.sum() + 9
    numbers = mask_numbers(tree, [20], tokens=tokens + 9, past=24)
    assert [getattr(padded, name).tolist() for name in ("first", "end", "at", "positions")] == numbers


def test_a_way_that_fails_is_given_up_and_the_pass_is_computed_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    tree = grow([[5, 6, 7, 8, 9], [5, 6, 7, 8, 10, 11]])
    kept: list[KeysAndValues] = []
    with torch.no_grad():
        expected = model.engine.hidden_of(tree)

        def failing(self: Any, layer: int, *_: Any, **__: Any) -> torch.Tensor:
            if layer:
                raise NotImplementedError("there is no such kernel")
            self._kept.append(())
            return torch.zeros(len(tree.ids), 0)

        monkeypatch.setattr(MaskedView, "attend", failing)
        model.engine.ways.fused = True
        found = model.engine.hidden_of(tree, kept=kept)
    torch.testing.assert_close(found, expected)
    assert len(kept) == model.network.config.num_hidden_layers
    assert not model.engine.ways.fused and model.engine.ways.given_up.keys() == {"fused"}


def test_a_shortage_of_memory_gives_no_way_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.engine.ways.fused = True

    def failing(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(MaskedView, "attend", failing)
    with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
        model.engine.hidden_of(grow([[5, 6, 7]]))
    assert model.engine.ways.fused

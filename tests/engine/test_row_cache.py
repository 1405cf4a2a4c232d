"""The KV cache of rows knows in Python how long they are: nothing asks the device, where each question is a wait."""

from __future__ import annotations

import pytest
import torch

from rung.engine.cohorts import AllCohorts
from rung.engine.kv_cache import RowCache, Shared

META = torch.device("meta")  # its tensors hold no numbers, so that whoever asks for one fails


def cache(held: list[int], *, room: int = 6) -> RowCache:
    """Rows behind 9 tokens that all of them see, in one layer of 2 heads."""
    keys = torch.empty(1, 2, 9, 8, device=META)
    behind = [Shared([(keys, keys)], range(9), 0, len(held))]
    positions = torch.empty(len(held), room, dtype=torch.long, device=META)
    lengths = torch.empty(len(held), dtype=torch.long, device=META)
    rows = RowCache(lengths, room, behind, positions, [9 + n for n in held], held=held)
    states = torch.empty(1, 2, 8, device=META)
    place = torch.zeros(1, dtype=torch.long, device=META)
    rows.hold(0, states, states, place, place)
    return rows


@pytest.mark.parametrize("window", [None, 4])
def test_no_step_asks_the_device(window: int | None) -> None:
    rows, other = cache([1, 5, 3]), cache([2, 4])
    for counts in ([1, 1, 1], [1, 3, 2]):
        rows.expect(counts)
        query, key = (torch.empty(sum(counts), heads, 8, device=META) for heads in (4, 2))
        assert rows.attend(0, query, key, key, 0.3, window=window).shape == query.shape
    rows.keep_rows([0, 2])
    rows.join(other)
    rows.expect([1, 1, 2, 1])
    assert rows.ends == [9 + 4, 9 + 7, 9 + 4, 9 + 5]


def test_without_numbers_in_python_the_lengths_are_read() -> None:
    lengths = torch.tensor([2, 5])
    rows = RowCache(lengths, 8, [], torch.arange(8).expand(2, 8), [2, 5])
    rows.expect([1, 2])
    assert rows.wanted is not None
    assert rows.wanted.tolist() == [0, 2] and rows.lengths.tolist() == [3, 7]


def test_a_pass_of_several_caches_knows_in_python_which_tokens_are_wanted() -> None:
    caches = [
        RowCache(torch.tensor(held), 8, [], torch.zeros(2, 8).long(), held, held=held) for held in ([2, 5], [1, 1])
    ]
    for cache, counts in zip(caches, ([1, 2], [1, 1]), strict=True):
        cache.expect(counts)
    both = AllCohorts(caches, [3, 2], long=False)
    assert both.wanted is not None
    assert both.wanted.tolist() == both.places == [0, 2, 3, 4]

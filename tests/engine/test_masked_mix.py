from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adapter_mix import CPU, SIZES, adapter, expected

from rung.engine import compiled_steps
from rung.engine.adapter_plain import PlainAdapter
from rung.engine.masked_mix import COUNTS, MaskedMix, kind_of

GROUPS = ((("q", "k", "v"), 6), (("q",), 6), (("v", "q"), 6), (("down",), 12), (("other",), 5))


def chosen(numbers: list[int]) -> list[PlainAdapter | None]:
    """Adapters by number; below 0 the base."""
    return [adapter(number) if number >= 0 else None for number in numbers]


@settings(max_examples=60, deadline=None)
@given(
    passes=st.lists(st.lists(st.integers(-1, 7), min_size=1, max_size=12), min_size=1, max_size=4),
    tokens=st.sampled_from([1, 3]),
)
def test_every_row_gets_its_own_adapter_alone_however_often_they_change(passes: list[list[int]], tokens: int) -> None:
    """Passes one after the other use the same buffers, whose addresses do not change."""
    kind = kind_of([*chosen(list(range(8))), None])
    assert kind is not None and not kind.alone
    mix, addresses = MaskedMix(kind, 12, CPU, torch.float32), set[tuple[int, ...]]()
    for numbers in passes:
        own = chosen(numbers)
        mix.put(own)
        mix.begin(tokens)
        of_tokens = [one for one in [*own, *[None] * (12 - len(own))] for _ in range(tokens)]
        for names, width in GROUPS:
            x = torch.randn(12 * tokens, width, generator=torch.Generator().manual_seed(len(numbers)))
            outs = [torch.zeros(len(x), SIZES[name].outs) if name in SIZES else torch.zeros(1) for name in names]
            tensors = mix.tensors(names) if any(own) else None
            pure = compiled_steps._mixed(x, list(outs), tensors) if tensors is not None else outs
            if any(own):
                mix.add(x, outs, names)
            if names != ("other",):
                theirs = expected(x, of_tokens, names)
                torch.testing.assert_close(outs, theirs, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(pure, theirs, rtol=1e-4, atol=1e-4)
        if any(own):
            addresses.add(tuple(buffers.a.data_ptr() for buffers in mix._buffers.values()))
    assert len(addresses) <= 1


def test_one_adapter_of_all_rows_is_not_masked() -> None:
    own = chosen([3, 3, 3])
    kind = kind_of(own)
    assert kind is not None and kind.alone and kind.count == 1
    mix = MaskedMix(kind, 4, CPU, torch.float32)
    mix.put(own)
    mix.begin(1)
    x, outs = torch.randn(4, 6), [torch.zeros(4, 10)]
    mix.add(x, outs, ("q",))
    torch.testing.assert_close(outs, expected(x, [*own, adapter(3)], ("q",)), rtol=1e-4, atol=1e-4)
    assert mix.tensors(("q",))[2] is None and mix.bytes == 4 * 8 * 16


def test_kinds_count_adapters_in_steps_and_refuse_too_many() -> None:
    assert kind_of([None, None]) is None and kind_of([]) is None
    for count, expected_count in ((1, 1), (2, 2), (3, 4), (5, 8)):
        kind = kind_of(chosen(list(range(count))))
        assert kind is not None and kind.count == expected_count
    wide = kind_of(chosen([0, 2]))
    assert wide is not None and wide.rank == 16 and wide.layers == set(SIZES.items())
    assert kind_of(chosen(list(range(COUNTS[-1] + 1)))) is None


def test_tokens_of_unknown_owners_are_an_error() -> None:
    own = chosen([0, 1])
    kind = kind_of(own)
    assert kind is not None
    mix = MaskedMix(kind, 2, CPU, torch.float32)
    mix.put(own)
    mix.begin(1)
    with pytest.raises(ValueError, match="q gets 3 of 2 tokens"):
        mix.add(torch.randn(3, 6), [torch.zeros(3, 10)], ("q",))

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adapter_safety import adapters, write

from rung.engine import adapter_held
from rung.engine.adapter_mix import AdapterMix
from rung.engine.adapter_plain import AdapterLayout, LinearSize, PlainAdapter
from rung.engine.adapter_slots import AdapterSlots

SIZES = {"q": LinearSize(6, 10), "k": LinearSize(6, 4), "v": LinearSize(6, 4), "down": LinearSize(12, 6)}
KINDS = (AdapterLayout(8, tuple(SIZES.items())), AdapterLayout(16, (("q", SIZES["q"]), ("v", SIZES["v"]))))


@cache
def adapter(number: int) -> PlainAdapter:
    layout = KINDS[number % 3 == 2]
    _, length = layout.starts
    return PlainAdapter(layout, torch.randn(length, generator=torch.Generator().manual_seed(number)))


def expected(x: torch.Tensor, chosen: Sequence[PlainAdapter | None], names: tuple[str, ...]) -> list[torch.Tensor]:
    """Token by token, factor by factor."""
    outs = [torch.zeros(len(x), SIZES[name].outs) for name in names]
    for token, own in enumerate(chosen):
        for out, name in zip(outs, names, strict=True):
            if own is not None and name in dict(own.layout.layers):
                (first, second), size, rank = own.layout.starts[0][name], SIZES[name], own.layout.rank
                a = own.row[first : first + rank * size.ins].view(rank, size.ins)
                b = own.row[second : second + rank * size.outs].view(rank, size.outs)
                out[token] = x[token] @ a.T @ b
    return outs


def added(mix: AdapterMix, x: torch.Tensor, names: tuple[str, ...]) -> list[torch.Tensor]:
    outs = [torch.zeros(len(x), SIZES[name].outs) for name in names]
    mix.add(x, outs, names)
    return outs


CPU = torch.device("cpu")
RUNS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 70) | st.integers(1, 3)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(passes=st.lists(RUNS, min_size=1, max_size=4), most=st.integers(1, 8), spread=st.booleans(), data=st.data())
def test_every_token_gets_its_own_adapter_alone(
    passes: list[list[tuple[int, int]]], most: int, spread: bool, data: st.DataObject
) -> None:
    """Passes one after the other use the same slots, of which there may be too few."""
    slots: dict[int, AdapterSlots] = {}
    choices = [None, *(adapter(number) for number in range(9))]
    for runs in passes:
        of_tokens = [place for place, length in runs for _ in range(length)]
        if spread:
            order = torch.randperm(len(of_tokens), generator=torch.Generator().manual_seed(len(of_tokens)))
            of_tokens = [of_tokens[i] for i in order]
        mix = AdapterMix(choices, of_tokens, lambda k: slots.setdefault(id(k), AdapterSlots(most)), CPU)
        wanted = data.draw(st.lists(st.integers(0, len(of_tokens) - 1), min_size=1, max_size=9))
        for names, width in ((("q", "k", "v"), 6), (("q",), 6), (("v", "q"), 6), (("down",), 12), (("other",), 5)):
            x = torch.randn(len(of_tokens), width, generator=torch.Generator().manual_seed(1))
            if names == ("other",):
                mix.add(x, [torch.empty(0)], names)  # a layer that none of them adapts
                continue
            theirs = expected(x, [choices[place] for place in of_tokens], names)
            torch.testing.assert_close(added(mix, x, names), theirs, rtol=1e-4, atol=1e-4)
        few = mix.of(wanted)
        x = torch.randn(len(wanted), 6, generator=torch.Generator().manual_seed(2))
        theirs = expected(x, [choices[of_tokens[token]] for token in wanted], ("q", "k"))
        torch.testing.assert_close(added(few, x, ("q", "k")), theirs, rtol=1e-4, atol=1e-4)


def test_tokens_of_unknown_owners_are_an_error() -> None:
    mix = AdapterMix([adapter(0)], [0, 0], lambda _: AdapterSlots(4), CPU)
    with pytest.raises(ValueError, match="q gets 3 of 2 tokens"):
        mix.add(torch.zeros(3, 6), [torch.zeros(3, 10)], ("q",))


def test_a_change_of_one_adapter_copies_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = AdapterSlots(3)
    first, more = [adapter(n) for n in (0, 1, 3)], adapter(4)
    places = slots.place(first)
    slots.blocks(("q", "k", "v"), 0, 3)
    copied: list[PlainAdapter] = []
    blocks = PlainAdapter.blocks
    monkeypatch.setattr(PlainAdapter, "blocks", lambda self, names: (copied.append(self), blocks(self, names))[1])
    assert slots.place(first) == places and copied == []
    found = slots.place([first[0], more, first[2]])
    assert copied == [more] and found == {first[0]: 0, more: 1, first[2]: 2}
    slots.forget(more)
    assert slots.place([adapter(6)]) == {adapter(6): 1}, "the free slot"
    assert slots.place([adapter(7)]) == {adapter(7): 0}, "the slot that was used longest ago"


# ---- in memory ----------------------------------------------------------------------------------


def test_more_adapters_than_bytes_are_dropped_and_read_again(tmp_path: Path) -> None:
    found = adapters()
    folders = [
        str(write(tmp_path / str(n), {"A": torch.full((4, 6), float(n)), "B": torch.ones(10, 4)})) for n in range(5)
    ]
    found.held.most_bytes = 2 * 4 * 8 * 16
    for _ in range(2):
        for number, folder in enumerate(folders):
            held = found.held.hold(folder, "")
            assert held is not None and held.row[0] == number
            assert found.held.bytes <= found.held.most_bytes
    found.held.most_bytes = 1
    assert found.hold(folders[0]) and len(found.held) == 1, "the one used last stays"


def test_adapters_are_held_and_forgotten_by_many_threads_at_once(tmp_path: Path) -> None:
    found, errors = adapters(), list[BaseException]()
    folders = [
        str(write(tmp_path / str(n), {"A": torch.full((4, 6), float(n)), "B": torch.ones(10, 4)})) for n in range(4)
    ]

    def work(start: int) -> None:
        try:
            for i in range(60):
                number = (start + i) % 4
                held = found.held.hold(folders[number], "")
                assert held is not None and held.row[0] == number
                if i % 5 == start:
                    found.held.forget(folders[number])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_folder_that_is_forgotten_while_it_is_read_is_read_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folder = adapters(), str(write(tmp_path / "a"))
    read = adapter_held.read_plain

    def meanwhile(*given: object) -> PlainAdapter:
        result = read(*given)  # type: ignore[arg-type]
        monkeypatch.setattr(adapter_held, "read_plain", read)
        found.forget(folder)
        return result

    monkeypatch.setattr(adapter_held, "read_plain", meanwhile)
    assert found.hold(folder) and found.held.bytes == 0
    assert found.hold(folder) and found.held.bytes > 0

"""Compiled steps beside the fused steps. Most tests run the formulas as they stand; a few go through the compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_layer_plan import FUSED, ROWS, assert_close, begin_training, engine_of, gradients, hidden_of, network_of

from rung.engine import compiled_steps
from rung.engine.adapter_plain import AdapterLayout, LinearSize, PlainAdapter, linears_of
from rung.engine.checkpointing import checkpointing
from rung.engine.layers import fused_layers
from rung.engine.masked_mix import MaskedMix, kind_of
from rung.engine.prefix_tree import grow

# PEFT prepares patterns for experts that no adapter is to reach.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # PyTorch's compiler imports it
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),  # which it hides by itself
]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formulas run uncompiled. The names of those that ran."""
    names: list[str] = []

    def counted(formula: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            names.append(formula.__name__)
            return formula(*given)

        return call

    monkeypatch.setattr(compiled_steps, "_compiled", counted)
    return names


@pytest.mark.parametrize("kind", FUSED)
def test_the_formulas_of_a_family_give_the_states_and_gradients_of_the_fused_steps(
    kind: str, called: list[str]
) -> None:
    network = network_of(kind)
    engine = engine_of(network)
    begin_training(engine)
    assert len(fused_layers(network)) == 2
    theirs, their_gradients = hidden_of(engine), gradients(engine)
    assert not called
    with compiled_steps.taken():
        ours, our_gradients = hidden_of(engine), gradients(engine)
    assert called == ["entered", "left"] * 4
    assert_close(ours, theirs)
    assert any(g.norm() > 0 for g in their_gradients.values())
    for name, expected in their_gradients.items():
        assert (our_gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


def test_factors_in_float32_over_a_base_in_bfloat16_get_the_gradients_of_the_fused_steps(called: list[str]) -> None:
    engine = engine_of(network_of("Qwen3", torch.bfloat16))
    begin_training(engine)
    theirs = gradients(engine)
    assert {g.dtype for g in theirs.values()} == {torch.float32}
    with compiled_steps.taken():
        ours = gradients(engine)
    assert called == ["entered", "left"] * 2
    for name, expected in theirs.items():
        assert ours[name].dtype == torch.float32
        assert (ours[name] - expected).norm() <= 0.03 * expected.norm(), name


def plain_adapters(engine: Any, count: int) -> list[PlainAdapter]:
    linears = {name: module for name, module in linears_of(engine.network).items() if "lm_head" not in name}
    layout = AdapterLayout(4, tuple((name, LinearSize(m.in_features, m.out_features)) for name, m in linears.items()))
    draw = torch.Generator().manual_seed(5)
    return [PlainAdapter(layout, torch.randn(layout.starts[1], generator=draw) * 0.1) for _ in range(count)]


@pytest.mark.parametrize("kind", ["Qwen3", "Phi3", "Qwen3Moe"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_mix_under_masks_is_compiled_and_adds_what_it_adds_to_fused_steps(
    kind: str, alone: bool, called: list[str]
) -> None:
    engine = engine_of(network_of(kind))
    first, second = plain_adapters(engine, 2)
    tokens = len(grow(ROWS).ids)
    of_tokens = [first] * tokens if alone else [(first, None, second)[token % 3] for token in range(tokens)]
    found = []
    for compiled in (False, True):
        mix = MaskedMix(kind_of(of_tokens), tokens, torch.device("cpu"), torch.float32)
        mix.put(of_tokens)
        mix.begin(1)
        with torch.inference_mode(), engine.adapters.applying(mix), compiled_steps.taken(compiled):
            found.append(hidden_of(engine))
        assert bool(called) == compiled
    assert_close(found[1], found[0], 1e-5)
    with torch.inference_mode():
        assert max(float((a - b).norm() / b.norm()) for a, b in zip(found[1], hidden_of(engine), strict=True)) > 0.01


def test_several_adapters_at_once_run_the_fused_steps_unless_they_stand_under_masks() -> None:
    engine = engine_of(network_of("Llama"))
    kind = kind_of(plain_adapters(engine, 2))
    assert not compiled_steps.are_taken()
    with compiled_steps.taken():
        assert compiled_steps.are_taken() and not compiled_steps.are_taken(object())
        assert compiled_steps.are_taken(MaskedMix(kind, 3, torch.device("cpu"), torch.float32))
        with compiled_steps.taken(False):
            assert not compiled_steps.are_taken()


# ---- through the compiler ---------------------------------------------------------------------------

compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of PyTorch needs a C++ compiler")


@pytest.fixture
def variants() -> Iterator[Callable[[], int]]:
    """How many variants were compiled so far, of all functions."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@compiles
def test_layers_of_a_kind_share_their_compiled_steps_and_nothing_is_compiled_twice(
    variants: Callable[[], int],
) -> None:
    network = network_of("Qwen3", num_hidden_layers=3)
    engine = engine_of(network)
    begin_training(engine)
    theirs, their_gradients = hidden_of(engine), gradients(engine)
    with compiled_steps.taken():
        ours = hidden_of(engine)
        assert variants() == 2
        our_gradients = gradients(engine)
        with checkpointing(network):
            again = gradients(engine)
        for _ in range(2):  # the second time, gradients are there
            torch.cat(hidden_of(engine)).sum().backward()
    assert variants() == 2
    assert_close(ours, theirs)
    for name, expected in their_gradients.items():
        assert (our_gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name
        assert (again[name] - expected).norm() <= 1e-4 * expected.norm(), name


@compiles
def test_a_thread_that_answers_in_bfloat16_compiles_once_for_all_its_passes(variants: Callable[[], int]) -> None:
    engine = engine_of(network_of("Gemma2", torch.bfloat16, num_hidden_layers=3, sliding_window=512))

    def answer() -> list[torch.Tensor]:
        with compiled_steps.taken(), torch.inference_mode():
            first, again = hidden_of(engine), hidden_of(engine)
        assert_close(again, first, 1e-6)
        return first

    with torch.no_grad():
        theirs = hidden_of(engine)
    with ThreadPoolExecutor(1) as thread:
        ours = thread.submit(answer).result()
    assert variants() == 2
    assert_close(ours, theirs, 0.02)

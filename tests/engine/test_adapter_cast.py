"""An adapter in training that is converted once a pass: the same numbers as layer by layer, in fewer launches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_gpu_kernels import Launches
from test_layer_plan import begin_training, engine_of, gradients, network_of

from rung.engine import compiled_steps
from rung.engine.adapter_cast import CastFactors

# PEFT prepares patterns for experts that no adapter is to reach.
pytestmark = pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys")


def trained(kind: str, dtype: torch.dtype, **config: Any) -> Any:
    engine = engine_of(network_of(kind, dtype))
    begin_training(engine, **config)
    return engine


@pytest.mark.parametrize(
    ("kind", "dtype", "config"),
    [
        ("Llama", torch.float32, {}),
        ("Qwen3", torch.bfloat16, {}),
        ("Phi3", torch.bfloat16, {}),
        ("Qwen3", torch.bfloat16, {"target_modules": ["v_proj", "up_proj"], "rank_pattern": {"up_proj": 2}}),
        ("Cohere", torch.bfloat16, {}),  # its layers are not fused
    ],
)
def test_an_adapter_that_is_converted_once_gives_the_same_gradients(
    kind: str, dtype: torch.dtype, config: dict[str, Any]
) -> None:
    engine, cast = trained(kind, dtype, **config), CastFactors()
    for scale in (1.0, 0.5):  # the copies follow the weights
        with torch.no_grad():
            for weight in (p for p in engine.network.parameters() if p.requires_grad):
                weight.mul_(scale)
        theirs = gradients(engine)
        with engine.adapters.casting(cast):
            ours = gradients(engine)
        assert any(g.norm() > 0 for g in theirs.values())
        for name, expected in theirs.items():
            assert torch.equal(ours[name], expected), name


def test_no_layer_converts_what_is_converted_once() -> None:
    engine, cast = trained("Llama", torch.bfloat16), CastFactors()
    with engine.adapters.casting(cast):
        gradients(engine)
    with Launches() as before:
        gradients(engine)
    with engine.adapters.casting(cast), Launches() as after:
        gradients(engine)
    assert len(before.names) - len(after.names) >= 50  # in two layers, each way


def test_compiled_steps_give_an_adapter_its_gradients_also_where_it_is_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled_steps, "_compiled", lambda formula: formula)
    engine = trained("Llama", torch.float32)
    expected = gradients(engine)
    with compiled_steps.taken(), engine.adapters.casting(CastFactors()):
        found = gradients(engine)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name

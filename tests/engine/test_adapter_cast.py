"""An adapter in training that is converted once a pass: the same numbers as layer by layer, in fewer launches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_gpu_kernels import Launches
from test_layer_plan import begin_training, engine_of, gradients, network_of

from rung.engine import compiled_steps, gpu_kernels
from rung.engine.adapter_cast import CastFactors
from rung.engine.static_pass import StaticPass, TargetRows
from rung.engine.ways import Ways

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


def launches(layers: int, cast: CastFactors | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of a padded pass that trains, both ways, as a GPU has them; the kernels of norms count as one each."""
    engine = engine_of(network_of("Llama", torch.bfloat16, num_hidden_layers=layers, num_key_value_heads=4))
    begin_training(engine)
    engine.ways = Ways(fused=True, static=True)
    static, counted = StaticPass(engine, (128, 64)), Launches()
    static.fill(TargetRows.of([((5, 6, 7, 8, 9), (10, 11))]))

    def norm_back(grad: torch.Tensor, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        counted.names.append("norm_back")
        return grad

    with monkeypatch.context() as on_gpu:
        for name in ("is_gpu", "has_norm"):
            on_gpu.setattr(gpu_kernels, name, lambda x: True)
        on_gpu.setattr(gpu_kernels, "norm", counted.norm)
        on_gpu.setattr(gpu_kernels, "norm_back", norm_back)
        with engine.adapters.casting(cast):
            static.hidden().sum().backward()
        counted.names.clear()
        for parameter in engine.network.parameters():
            parameter.grad = None
        with engine.adapters.casting(cast), counted:
            static.hidden().sum().backward()
    return len(counted.names)


@pytest.mark.parametrize(("cast", "most"), [(True, 101), (False, 127)])
def test_a_layer_that_trains_is_few_launches_and_fewer_where_its_adapter_is_converted_once(
    cast: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, fewer = (launches(layers, CastFactors() if cast else None, monkeypatch) for layers in (4, 3))
    assert more - fewer <= most


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

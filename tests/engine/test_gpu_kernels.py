"""The operations that the fused steps take on a GPU, on the CPU: the same numbers, in fewer launches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_layer_plan import assert_close, begin_training, engine_of, gradients, hidden_of, network_of
from torch.utils._python_dispatch import TorchDispatchMode

from rung.engine import gpu_kernels
from rung.engine.factors import Factors, project, project_back
from rung.engine.layer_plan import enter, leave
from rung.engine.layers import _fused_in

# PEFT prepares patterns for experts that no adapter is to reach.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys"),
    pytest.mark.skipif(not hasattr(torch.ops.aten, "_fused_rms_norm_backward"), reason="a torch without these kernels"),
]

_VIEWS = {"view", "t", "transpose", "slice", "split", "split_with_sizes", "unsqueeze", "select", "detach", "alias"}
_VIEWS |= {"_unsafe_view", "expand", "permute", "chunk", "narrow", "squeeze", "as_strided", "promote_types"}


class Launches(TorchDispatchMode):
    """Names of all operations that a GPU would have to be given, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.in_norm = False

    def norm(self, x: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The kernel of a GPU, which is several operations on a CPU."""
        self.names.append("norm")
        self.in_norm = True
        rows, factor = torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], None, epsilon)
        self.in_norm = False
        return rows, factor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not self.in_norm and name not in _VIEWS and not name.startswith("empty"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if tensors stood on a GPU. The backward kernel of norms exists there only; its formula does it here."""
    from torch._decomp import decomposition_table

    formula = decomposition_table[torch.ops.aten._fused_rms_norm_backward.default]

    def norm_back(grad: torch.Tensor, x: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        to_x: torch.Tensor = formula(grad, x, [x.shape[-1]], factor, weight, [True, False])[0]
        return to_x

    monkeypatch.setattr(gpu_kernels, "is_gpu", lambda x: True)
    monkeypatch.setattr(gpu_kernels, "has_norm", lambda x: True)
    monkeypatch.setattr(gpu_kernels, "norm_back", norm_back)


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Gemma3", "Olmo2", "Phi3", "Granite", "Qwen3Moe"])
def test_the_operations_of_a_gpu_give_the_states_and_gradients_of_those_of_a_cpu(
    kind: str, request: pytest.FixtureRequest
) -> None:
    engine = engine_of(network_of(kind))
    begin_training(engine)
    theirs, their_gradients = hidden_of(engine), gradients(engine)
    request.getfixturevalue("on_gpu")
    assert_close(hidden_of(engine), theirs)
    for name, found in gradients(engine).items():
        assert (found - their_gradients[name]).norm() <= 1e-4 * their_gradients[name].norm(), name


@pytest.mark.parametrize(("kind", "most"), [("Llama", 19), ("Qwen3", 25), ("Gemma2", 33)])
def test_a_layer_in_bfloat16_is_few_launches_beside_its_attention(
    kind: str, most: int, on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(kind, torch.bfloat16)
    engine = engine_of(network)
    layer = network.get_decoder().layers[0]
    fused = _fused_in(layer)
    assert fused is not None
    plan, adapters = fused.plan, engine.adapters
    known = [adapters.together(group) for group in plan.groups(layer)]
    x, width = torch.randn(3, 32), plan.enter.width
    rotation = torch.randn(3, width).bfloat16(), torch.randn(3, width).bfloat16()
    launches = Launches()
    monkeypatch.setattr(gpu_kernels, "norm", launches.norm)
    with torch.no_grad(), launches:
        query, _, _ = enter(plan, adapters, x, known[0], rotation)
        leave(plan, layer, x, query.flatten(1), known, None)
    assert len(launches.names) <= most, launches.names


@pytest.mark.parametrize(("scalings", "most"), [((2.0, 2.0, 2.0), 21), ((2.0, 0.5, 3.0), 24), ((2.0,), 9)])
def test_gradients_of_adapters_in_float32_are_few_launches(
    scalings: tuple[float, ...], most: int, request: pytest.FixtureRequest
) -> None:
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    x = random(5, 8).bfloat16()
    factors = [Factors(random(6, 8).bfloat16(), None, random(4, 8), random(6, 4), scaling) for scaling in scalings]
    _, narrow = project(x, factors, None)
    grads = [random(5, 6).bfloat16() for _ in factors]
    expected, their_fields = project_back(x, grads, factors, narrow)
    request.getfixturevalue("on_gpu")
    with torch.no_grad(), Launches() as launches:
        found, fields = project_back(x, grads, factors, narrow)
    assert len(launches.names) <= most, launches.names
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(fields, their_fields, strict=True):
        if theirs is not None:
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


def test_attention_with_a_mask_leaves_out_one_library_and_puts_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda = True

    switches, seen, fails = torch.backends.cuda, list[bool](), list[bool]()

    def attention(*_: Any, **__: Any) -> torch.Tensor:
        seen.append(switches.cudnn_sdp_enabled())
        if fails:
            raise RuntimeError("no kernel")
        return torch.zeros(1)

    monkeypatch.setattr(gpu_kernels, "scaled_dot_product_attention", attention)
    given: Any = (OnGpu(), None, None, None, 1.0)
    assert switches.cudnn_sdp_enabled()
    gpu_kernels.masked_attention(*given)
    gpu_kernels.masked_attention(*given, often=True)
    fails.append(True)
    with pytest.raises(RuntimeError, match="no kernel"):
        gpu_kernels.masked_attention(*given)
    assert seen == [False, True, False] and switches.cudnn_sdp_enabled()

"""Layers with weights in 4 bits in fused steps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from test_layer_plan import (
    ROWS,
    assert_close,
    begin_training,
    engine_of,
    gradients,
    hidden_of,
    network_of,
    plain_hidden_of,
)

from rung.engine import compiled_steps
from rung.engine.adapter_plain import linears_of
from rung.engine.adapters import IN_TRAINING
from rung.engine.factors import Factors
from rung.engine.layers import fused_layers, unfuse_layers
from rung.engine.loading_check import checked_engine
from rung.engine.packed import PackedWeight, is_packed, weight_of
from rung.engine.prefix_tree import grow

pytestmark = [
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys"),
    pytest.mark.filterwarnings("ignore::FutureWarning:bitsandbytes"),
]
installed = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def packed_network(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny network, loaded in 4 bits."""
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    network_of(kind, **sizes).save_pretrained(folder)
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=dtype, attn_implementation="eager", device_map={"": "cpu"}
    )
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return network.eval().requires_grad_(False)


@installed
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Gemma2"])
def test_layers_in_4_bits_run_fused_with_the_states_and_gradients_of_transformers_own(
    kind: str, tmp_path: Path
) -> None:
    network = packed_network(kind, tmp_path)
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert len(fused_layers(network)) == 2 and is_packed(network.model.layers[0].mlp.down_proj)
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)
    begin_training(engine)
    ours, our_gradients = hidden_of(engine), gradients(engine)
    with compiled_steps.taken():
        assert_close(hidden_of(engine), ours, 1e-6)
    unfuse_layers(network)
    theirs, their_gradients = hidden_of(engine), gradients(engine)
    assert_close(ours, theirs)
    for name, expected in their_gradients.items():
        assert (our_gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


@installed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_at_loading_leaves_layers_in_4_bits_fused(dtype: torch.dtype, tmp_path: Path) -> None:
    network = packed_network("Qwen3", tmp_path, dtype)
    engine = checked_engine(network, "tiny")
    assert engine.path == "tree" and engine.fused == (2, 2)
    assert network.model.layers[0].mlp.down_proj.compute_dtype == dtype
    assert engine.adapters.trainable and engine.fused == (2, 2) and not engine.adapters.plain
    assert engine.adapters.reads and len(linears_of(network)) == 14, "adapters are read and mixed as over whole weights"


def test_only_known_layers_have_a_weight_that_fused_steps_multiply_with() -> None:
    class Linear4bit(torch.nn.Linear):
        """Of that name, but nobody knows what it computes."""

    plain = torch.nn.Linear(3, 4)
    assert weight_of(plain) is plain.weight
    assert weight_of(Linear4bit(3, 4)) is None and not is_packed(Linear4bit(3, 4))


def test_packed_weights_are_not_compiled() -> None:
    plain, packed = Factors(torch.ones(2, 2), None), Factors(PackedWeight(None), None)
    with compiled_steps.taken():
        assert compiled_steps.are_taken(None, [[plain]])
        assert not compiled_steps.are_taken(None, [[plain], [plain, packed]])


@installed
def test_an_adapter_over_4_bits_is_read_without_peft_and_shares_a_batch(tmp_path: Path) -> None:
    engine = checked_engine(packed_network("Llama", tmp_path / "network"), "tiny")
    begin_training(engine)
    with torch.no_grad():
        expected = hidden_of(engine)
    folder = str(tmp_path / "adapter" / IN_TRAINING)
    engine.adapters.wrapper.save_pretrained(str(tmp_path / "adapter"), selected_adapters=[IN_TRAINING])
    engine.adapters.end_training()
    assert engine.adapters.hold(folder) and engine.adapters.mixable(folder)
    tokens = len(grow(ROWS).ids)
    with torch.inference_mode():
        base = hidden_of(engine)
        with engine.adapters.using(folder):
            assert_close(hidden_of(engine), expected)
        with engine.adapters.mixed([folder, None], [0] * tokens):
            assert_close(hidden_of(engine), expected)
    assert any((a - b).norm() > 1e-2 * b.norm() for a, b in zip(base, expected, strict=True))

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rung.data.model_keys import FOUR_BIT
from rung.errors import ModelError
from rung.models import four_bit, model_version, open_model
from rung.models.four_bit import SUFFIX, bytes_in_4_bits, is_unpacked, split_spec
from rung.models.loading import load_model
from rung.models.weights import Tensor, network_bytes
from rung.types import Decoding, Message, Request, TrainingOptions, TrainingRow

HELLO = Request((Message("user", "hi"),), Decoding(8))
installed = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def test_a_spec_says_whether_a_model_is_kept_in_4_bits() -> None:
    assert split_spec("org/name:4bit") == ("org/name", True) and split_spec("org/name") == ("org/name", False)
    assert SUFFIX == FOUR_BIT, "a task writes what the models read"


def test_a_model_in_4_bits_has_a_version_of_its_own(tiny_folder: Path) -> None:
    whole, small = model_version(str(tiny_folder)), model_version(f"{tiny_folder}:4bit")
    assert whole != small and len(whole) == len(small) == 16


def test_without_the_package_its_own_name_is_said(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "can_quantise", lambda: False)
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes.*: pip install bitsandbytes\.$"):
        open_model(f"{tiny_folder}:4bit")


def test_a_model_that_is_quantised_in_another_way_is_refused_in_4_bits(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_bit, "can_quantise", lambda: True)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    written = json.loads((folder / "config.json").read_text())
    written["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(ModelError, match=r"quantised already \(gptq\)"):
        load_model(f"{folder}:4bit", device="cpu")


def test_matrices_of_linear_layers_take_half_a_byte_a_weight_and_a_little() -> None:
    weights = {
        "model.embed_tokens.weight": Tensor("BF16", (1000, 64), 128_000),
        "model.layers.0.mlp.up_proj.weight": Tensor("BF16", (64, 256), 32_768),
        "model.layers.0.norm.weight": Tensor("BF16", (64,), 128),
    }
    assert bytes_in_4_bits(weights, 2) == 64_064 * 2 + int(64 * 256 * (0.5 + 1 / 64 + 4 / 16_384))
    assert network_bytes(weights, 4) == (64_064 + 16_384) * 4


def test_weights_that_no_kernel_computes_are_counted_as_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    fp8, mxfp4 = (SimpleNamespace(quantization_config={"quant_method": kind}) for kind in ("fp8", "mxfp4"))
    assert is_unpacked(fp8, "cpu") and is_unpacked(mxfp4, "cpu") and not is_unpacked(SimpleNamespace(), "cpu")
    for capability, unpacked in (((8, 0), True), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert is_unpacked(fp8, "cuda") is unpacked
    weights = {
        "model.layers.0.mlp.up_proj.weight": Tensor("F8_E4M3", (8, 8), 64),
        "model.layers.0.mlp.experts.down_proj_blocks": Tensor("U8", (2, 8, 1, 16), 256),
        "model.layers.0.mlp.experts.down_proj_scales": Tensor("U8", (2, 8, 1), 16),
    }
    assert network_bytes(weights, 2) == 64 + 256 + 16
    assert network_bytes(weights, 2, unpacked=True) == 128 + 1024 + 16


@installed
def test_a_model_in_4_bits_answers_as_transformers_does_and_is_trained(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = load_model(f"{tiny_folder}:4bit", device="cpu", dtype=torch.float32)
    kind = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    plain = AutoModelForCausalLM.from_pretrained(
        tiny_folder, quantization_config=kind, dtype=torch.float32, device_map={"": "cpu"}
    )
    four_bit.keep_trainable(plain)
    with torch.inference_mode():
        ours = model.engine.scores([([5, 6, 7], [8, 9])])[0]
        theirs = plain(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, 2:4]
        whole = load_model(str(tiny_folder), device="cpu", dtype=torch.float32).engine.scores([([5, 6, 7], [8, 9])])[0]
    assert torch.allclose(ours, theirs, atol=1e-3) and not torch.allclose(ours, whole, atol=1e-2)
    assert model.version == model_version(f"{tiny_folder}:4bit") and model.answers_key.startswith(model.version)
    before = model.generate([HELLO, HELLO])
    rows = [TrainingRow(f"r{i}", (Message("user", "hi"),), "the card") for i in range(4)]
    adapter = model.train(rows, TrainingOptions(1e-2, steps=4, batch_size=2), tmp_path / "adapter")
    assert model.loss(rows, adapter) < model.loss(rows, None)
    assert model.generate([HELLO, HELLO])[0].text == before[0].text
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_folder)

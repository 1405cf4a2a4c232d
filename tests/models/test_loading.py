"""A folder is loaded whole or not at all, and every refusal says what is wrong with which weights."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from rung.errors import ModelError, OutOfMemory
from rung.models import loading
from rung.models.loading import load_model
from rung.models.weights import Tensor

Weights = dict[str, torch.Tensor]
PROJECTION = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change(folder: Path, work: Callable[[Weights], Any], **config: Any) -> Path:
    """The same folder with other weights, and other keys in its config."""
    weights = load_file(folder / "model.safetensors")
    work(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **config}))
    return folder


def load(folder: Path, **more: Any) -> Any:
    return load_model(str(folder), device="cpu", dtype=torch.float32, **more)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        scores: torch.Tensor = model.engine.scores([([5, 6, 7], [8, 9])])[0]
    return scores


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).count(str(folder)) == 1, "its place is said, and said once"
    return str(caught.value)


def test_two_loads_of_one_folder_answer_alike(folder: Path) -> None:
    first, second = load(folder), load(folder)
    assert torch.equal(logits(first), logits(second)) and first.version == second.version


def test_a_missing_projection_is_named(folder: Path) -> None:
    said = refusal(change(folder, lambda w: w.pop(PROJECTION)))
    assert f"1 weight of its network is missing: {PROJECTION}. Copy or download the model again" in said


def test_a_missing_output_layer_is_named_where_it_is_not_the_embedding(folder: Path) -> None:
    assert "is missing: lm_head.weight" in refusal(change(folder, lambda w: w.pop("lm_head.weight")))


def test_an_output_layer_that_is_the_embedding_need_not_be_in_the_file(folder: Path) -> None:
    change(folder, lambda w: w.pop("lm_head.weight"), tie_word_embeddings=True)
    assert torch.equal(logits(load(folder)), logits(load(folder)))


def test_weights_that_all_have_other_names_are_named_with_their_number(folder: Path) -> None:
    def rename(weights: Weights) -> None:
        for name in list(weights):
            weights[f"network.{name}"] = weights.pop(name)

    said = refusal(change(folder, rename))
    assert "21 weights of its network are missing" in said and "21 weights have no place" in said
    assert "and 18 more" in said and "They look renamed: network.lm_head.weight stands for lm_head.weight" in said
    assert "download" not in said, "that would bring the same names"


def test_weights_that_are_missing_and_others_that_are_left_over_are_not_called_renamed(folder: Path) -> None:
    said = refusal(change(folder, lambda w: w.update(other=w.pop(PROJECTION))))
    assert "1 weight of its network is missing" in said and "1 weight has no place" in said and "renamed" not in said
    assert said.endswith("Take config.json and weights from one and the same model.")


def test_a_weight_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    said = refusal(change(folder, lambda w: w.update({PROJECTION: torch.zeros(60, 32)})))
    assert f"1 weight has another shape than config.json says: {PROJECTION} (60, 32) instead of (64, 32)" in said
    assert "missing" not in said and "download" not in said and "from one and the same model" in said


@pytest.mark.parametrize(
    "name", ["extra.weight", "model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight"]
)
def test_a_weight_that_the_network_has_no_place_for_is_named(folder: Path, name: str) -> None:
    said = refusal(change(folder, lambda w: w.update({name: torch.ones(32)})))
    assert f"1 weight has no place in the network that config.json describes: {name}" in said
    assert "missing" not in said and "whole" not in said and "save_pretrained, which leaves them out" in said


def test_what_lies_beside_a_decoder_is_no_fault(folder: Path) -> None:
    """Towers, extra predictions and tables of old checkpoints, as published models hold them."""
    beside = {
        "mtp.layers.0.mlp.up_proj.weight": torch.zeros(2),
        "model.visual.blocks.0.attn.qkv.weight": torch.zeros(2),
        "vision_tower.encoder.layers.0.mlp.fc1.weight": torch.zeros(2),
        "multi_modal_projector.linear.weight": torch.zeros(2),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "model.layers.0.self_attn.k_scale": torch.zeros(1),
        "model.layers.0.attn.bias": torch.ones(1, 1, 4, 4),
        "model.layers.2.eh_proj.weight": torch.zeros(2),
    }
    expected = logits(load(folder))
    change(folder, lambda w: w.update(beside), num_nextn_predict_layers=1)
    assert torch.equal(logits(load(folder)), expected)


def test_old_tables_of_a_mask_are_no_fault(folder: Path) -> None:
    load(change(folder, lambda w: w.update({"transformer.h.0.attn.causal_mask": torch.ones(1, 1, 4, 4)})))


def test_a_bias_of_zeros_without_a_place_is_no_fault_and_any_other_is(folder: Path) -> None:
    """Some ways to quantise write one for every layer."""
    bias = "model.layers.0.self_attn.q_proj.bias"
    expected = logits(load(folder))
    change(folder, lambda w: w.update({bias: torch.zeros(32)}))
    assert torch.equal(logits(load(folder)), expected)
    assert bias in refusal(change(folder, lambda w: w.update({bias: torch.eye(32)[3]})))


# ---- torn files -----------------------------------------------------------------------------


def in_parts(folder: Path) -> dict[str, Any]:
    """Weights in two files with an index, as large models come. Returns the index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {}
    for part, some in (("a", names[:10]), ("b", names[10:])):
        save_file({name: weights[name] for name in some}, folder / f"{part}.safetensors", {"format": "pt"})
        places.update(dict.fromkeys(some, f"{part}.safetensors"))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


@pytest.mark.parametrize(
    ("kept", "fact"),
    [
        (0, "is empty"),
        (4, "is cut off: it has 4 bytes"),
        (500, "is cut off: it has 500 bytes"),
        (-1, "has 151,247 bytes"),
    ],
)
def test_a_file_that_was_cut_is_an_error_before_anything_is_read(folder: Path, kept: int, fact: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"model.safetensors {fact}" in refusal(folder)


def test_a_file_that_is_none_of_weights_is_said_to_be_none(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert "model.safetensors is a pointer of Git LFS and not the file itself" in refusal(folder)
    (folder / "model.safetensors").write_text("<html>sign in</html>")
    assert "model.safetensors is no safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"])
def test_a_torn_file_beside_the_weights_is_named_in_plain_words(folder: Path, name: str) -> None:
    """Without its generation config a model would lose end tokens, and nobody would be told."""
    whole = (folder / name).read_text()
    place = whole.index("\n", len(whole) // 2) + 1  # behind a line, of which the next would be cut
    for cut, fact in (
        (0, f"{name} is empty"),
        (place, f"{name} is cut off at line {whole[:place].count(chr(10))}"),
    ):
        (folder / name).write_text(whole[:cut])
        said = refusal(folder)
        assert fact in said and "again" in said and "(" not in said.replace("(s)", "")
    (folder / name).write_text("{'a': 1}")
    assert f"{name} is no JSON from line 1 on" in refusal(folder)


def test_weights_in_parts_are_loaded_and_a_lost_part_is_named(folder: Path) -> None:
    expected = logits(load(folder))
    in_parts(folder)
    assert torch.equal(logits(load(folder)), expected)
    (folder / "b.safetensors").unlink()
    assert "index.json names b.safetensors, and it is not there" in refusal(folder)


def test_weights_that_may_not_be_read_are_an_error_with_a_next_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.open

    def closed(path: Path, *args: Any, **more: Any) -> Any:
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied")
        return plain(path, *args, **more)

    monkeypatch.setattr(Path, "open", closed)
    assert "cannot be read (Permission denied). Check its permissions" in refusal(folder)


def test_an_index_that_names_a_weight_which_no_file_holds_is_an_error(folder: Path) -> None:
    index = in_parts(folder)
    index["weight_map"]["model.other.weight"] = "a.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names model.other.weight, and no file holds it" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("{")
    assert "index.json is cut off at line 1" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "index.json says of no weight in which file it is" in refusal(folder)


def test_parts_without_an_index_are_an_error(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "there is no model.safetensors.index.json, only model-00001-of-00002.safetensors" in refusal(folder)


# ---- other kinds of models -----------------------------------------------------------------


def as_kind(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_unknown_architecture_is_an_error_that_names_it(folder: Path) -> None:
    assert "does not know its architecture (llama99)" in refusal_of(as_kind(folder, {"model_type": "llama99"}))
    assert "names no model_type" in refusal_of(as_kind(folder, {}))
    assert "config.json is no JSON object" in refusal_of(as_kind(folder, []))  # type: ignore[arg-type]


def refusal_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    return str(caught.value)


def test_a_model_that_brings_its_own_code_is_refused_without_running_it(folder: Path) -> None:
    (folder / "own.py").write_text("raise SystemExit('run')")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    assert "rung runs no code of models" in refusal_of(as_kind(folder, own))


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        ({"model_type": "t5"}, "an encoder with a decoder (t5)"),
        ({"model_type": "bert"}, "whose tokens see what follows them (bert)"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "(vit, ViTModel)"),
    ],
)
def test_a_model_that_is_no_causal_language_model_is_refused(folder: Path, config: dict[str, Any], fact: str) -> None:
    said = refusal_of(as_kind(folder, config))
    assert "not a causal language model" in said and fact in said and "`rung models` lists some" in said


@pytest.mark.parametrize(
    "broken",
    [{"num_attention_heads": "many"}, {"hidden_size": None}, {"hidden_act": "unheard of"}, {"num_attention_heads": 0}],
)
def test_a_config_that_transformers_cannot_build_is_a_model_error(folder: Path, broken: dict[str, Any]) -> None:
    said = refusal_of(change(folder, lambda w: None, **broken))
    assert str(folder) in said and said.endswith((".", "some."))


def test_a_tokenizer_that_cannot_be_read_is_a_model_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 7}')
    assert "its tokenizer cannot be loaded" in refusal(folder)


def test_a_package_that_a_model_needs_is_named_as_the_next_step(folder: Path) -> None:
    change(folder, lambda w: None, quantization_config={"quant_method": "gptq", "bits": 4})
    said = refusal_of(folder)
    assert "needs a package that is not installed here" in said and "Check that the folder is whole" not in said


def test_a_folder_with_an_adapter_is_refused_as_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refusal(folder)


def test_weights_that_are_put_together_while_loading_are_named_when_one_is_lost(tmp_path: Path, folder: Path) -> None:
    """The experts of a mixture lie one by one in the file and are one weight in the network."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    network = MixtralForCausalLM(
        MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, num_local_experts=2)
    )
    network.save_pretrained(tmp_path / "mix")
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "mix")
    said = refusal_of(change(tmp_path / "mix", lambda w: w.pop(next(n for n in sorted(w) if ".experts." in n))))
    assert "does not hold the whole model" in said and "experts" in said


def source_in(folder: Path) -> Any:
    return loading._Source("x", folder, "1", loading.read_config("x", folder), loading.read_weights(folder), False)


# ---- memory -----------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_with_numbers_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(loading, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(OutOfMemory) as caught:
        load(folder)
    assert "its 37,280 weights need 0.9 MB in float32, and 1 kB are free in memory." in str(caught.value)


def test_an_8_b_shape_fits_a_card_of_24_gb_and_who_holds_the_card_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its 16 GB of weights are counted once, and neither in float32 nor beside a copy of the machine's memory."""
    config = AutoConfig.for_model(
        "llama",
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14_336,
        vocab_size=128_256,
        tie_word_embeddings=False,
    )
    weights = {"embed_tokens.weight": (128_256, 4096), "lm_head.weight": (128_256, 4096)}
    for i in range(32):
        of_layer = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)}
        of_layer |= {"gate": (14_336, 4096), "up": (14_336, 4096), "down": (4096, 14_336)}
        weights |= {f"layers.{i}.{name}_proj.weight": shape for name, shape in of_layer.items()}
    found = {name: Tensor("BF16", shape, 2 * math.prod(shape)) for name, shape in weights.items()}
    source = loading._Source("8b", Path("8b"), "", config, found, False)
    assert 16.0 < source.bytes_in(torch.bfloat16, "cuda") / 1e9 < 16.3
    monkeypatch.setattr(loading, "kept_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(loading, "free_bytes", lambda device: int(23e9))
    assert loading._fitting_dtype(source, "cuda", None, print) == torch.bfloat16
    monkeypatch.setattr(loading, "free_bytes", lambda device: int(9e9))
    monkeypatch.setattr(loading, "give_back", lambda device: None)
    monkeypatch.setattr(loading, "others_bytes", lambda device: int(13e9))
    with pytest.raises(OutOfMemory, match=r"9.0 GB are free on the GPU; other processes hold 13 GB of it\. In 4 bits"):
        loading._fitting_dtype(source, "cuda", None, print)


def test_on_a_cpu_a_model_that_fits_in_bfloat16_alone_is_computed_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_in(folder)
    whole, half = source.bytes_in(torch.float32), source.bytes_in(torch.bfloat16)
    monkeypatch.setattr(loading, "kept_dtype", lambda device: torch.float32)
    monkeypatch.setattr(loading, "free_bytes", lambda device: (whole + half) // 2)
    said: list[str] = []
    assert load_model(str(folder), device="cpu", say=said.append).engine.dtype == torch.bfloat16
    assert "computing in bfloat16" in said[0]
    with pytest.raises(OutOfMemory):
        load(folder)  # float32 was asked for


def test_what_would_fit_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_in(folder)
    quarter = loading.bytes_in_4_bits(source.weights, 4)
    assert "In 4 bits" in loading._what_would_fit(source, quarter, torch.float32)
    monkeypatch.setattr(loading, "that_fit", lambda room, itemsize: ["small", "large"])
    assert loading._what_would_fit(source, quarter - 1, torch.float32).endswith("such as large.")


def test_memory_of_models_that_nobody_holds_is_given_back_before_one_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [0]
    monkeypatch.setattr(loading, "free_bytes", lambda device: free[0])
    monkeypatch.setattr(loading, "give_back", lambda device: free.insert(0, 1 << 40))
    load(folder)


def test_a_quantised_model_is_not_advised_to_be_quantised(folder: Path) -> None:
    change(folder, lambda w: None, quantization_config={"quant_method": "gptq", "bits": 4})
    source = source_in(folder)
    assert "In 4 bits" not in loading._what_would_fit(source, 1 << 40, torch.float32)


def test_where_only_the_gpu_is_too_small_the_cpu_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_in(folder)
    monkeypatch.setattr(loading, "kept_dtype", lambda device: torch.float32)
    assert "CUDA_VISIBLE_DEVICES" in loading._beside_the_gpu(source, "cuda")
    assert loading._beside_the_gpu(source, "cpu") == ""
    monkeypatch.setattr(loading, "free_host_bytes", lambda: 1)
    assert loading._beside_the_gpu(source, "cuda") == ""


# ---- what PEFT finds ---------------------------------------------------------------------------


def test_peft_finds_the_base_of_an_adapter_by_itself(folder: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    from rung.types import Message, TrainingOptions, TrainingRow

    model = load(folder)
    rows = [TrainingRow("r1", (Message("user", "hi"),), "the card")]
    adapter = model.train(rows, TrainingOptions(1e-2, steps=2, batch_size=1), tmp_path / "adapter")
    record = json.loads((adapter / "base.json").read_text())
    assert record == {"model": str(folder), "base": str(folder), "version": model.version}
    plain = AutoPeftModelForCausalLM.from_pretrained(adapter)
    with torch.inference_mode(), model.engine.adapters.using(str(adapter)):
        ours = logits(model)
        theirs = plain(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, 2:4]
    assert torch.allclose(ours, theirs, atol=1e-4) and not torch.allclose(ours, logits(load(folder)), atol=1e-3)


def test_the_base_of_a_hub_model_is_its_id_and_of_any_other_its_folder(folder: Path) -> None:
    assert loading._base_of("org/name", folder) == "org/name"
    assert loading._base_of("smollm2-135m-instruct", folder) == loading._base_of(str(folder), folder) == str(folder)

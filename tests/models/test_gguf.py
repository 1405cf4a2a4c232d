"""A GGUF file of a tiny Llama, written here, to a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from rung.errors import ModelError
from rung.models.gguf import build_tokenizer, convert_gguf
from rung.models.loading import load_model

WIDTH, INNER, HEADS, LAYERS = 32, 64, 4, 2
TOKENS = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]


def write_gguf(
    path: Path,
    *,
    without: str | None = None,
    pre: str = "smollm",
    scaling: dict[str, Any] | None = None,
    factors: Any = None,
) -> Path:
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for key, value in (scaling or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(f"llama.rope.scaling.{key}", value)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{i}.{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{i}.{name}": (INNER, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{i}.ffn_down"] = (WIDTH, INNER)
    draw = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name != without:
            writer.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_converted_file_is_a_whole_model_whose_text_comes_back(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    reader = gguf.GGUFReader
    convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert gguf.GGUFReader is reader, "the library is left as it was"
    down = next(t for t in reader(str(tmp_path / "tiny.gguf")).tensors if t.name == "blk.1.ffn_down.weight")
    kept = load_file(tmp_path / "model" / "model.safetensors")
    assert np.array_equal(kept["model.layers.1.mlp.down_proj.weight"], down.data)
    model = load_model(str(tmp_path / "model"), device="cpu")
    ids = model.chat.tokenizer("he said", add_special_tokens=False).input_ids
    assert ids[0] == len(TOKENS) - 1 and model.chat.tokenizer.decode(ids) == "he said"


def test_a_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    class Counted(gguf.GGUFReader):  # type: ignore[misc]
        def __init__(self, path: str, mode: str = "r") -> None:
            parsed.append(path)
            super().__init__(path, mode)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert len(parsed) == 1


def test_a_file_that_lacks_weights_is_refused_and_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 weights .* missing .*: model\.layers\.1\.mlp\.up_proj\.weight"):
        convert_gguf(write_gguf(tmp_path / "tiny.gguf", without="blk.1.ffn_up"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def positions(tmp_path: Path, **how: Any) -> dict[str, Any]:
    convert_gguf(write_gguf(tmp_path / "tiny.gguf", **how), tmp_path / "model")
    kept: dict[str, Any] = json.loads((tmp_path / "model" / "config.json").read_text())["rope_parameters"]
    return kept


def test_llama_3s_scale_of_positions_is_found_again(tmp_path: Path) -> None:
    """Llama 3.1 and 3.2 write it as one factor for each frequency, which transformers does not read."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scale = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, max_position_embeddings=131_072, rope_parameters=scale
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    half = WIDTH // HEADS // 2
    factors = 500_000.0 ** -(np.arange(half) / half) / scaled.numpy()
    assert positions(tmp_path, factors=factors) == scale
    assert positions(tmp_path, factors=np.ones(half))["rope_type"] == "default"
    with pytest.raises(ModelError, match="scales positions in a way that is not read from GGUF"):
        positions(tmp_path, factors=factors * np.array([1, 1, 1, 1.1]))


def test_a_scale_that_the_file_names_is_kept(tmp_path: Path) -> None:
    assert positions(tmp_path)["rope_type"] == "default"
    linear = positions(tmp_path, scaling={"type": "linear", "factor": 8.0})
    assert (linear["rope_type"], linear["factor"]) == ("linear", 8.0)
    yarn = positions(tmp_path, scaling={"type": "yarn", "factor": 4.0, "original_context_length": 64.0})
    assert (yarn["rope_type"], yarn["original_max_position_embeddings"]) == ("yarn", 64)
    with pytest.raises(ModelError, match="longrope"):
        positions(tmp_path, scaling={"type": "longrope"})


def test_a_word_that_is_a_token_of_llama_3_needs_no_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.TOKENS", [*TOKENS, "abc"])
    for pre, number in (("llama-bpe", 1), ("smollm", 3)):
        tokenizer = build_tokenizer(write_gguf(tmp_path / f"{pre}.gguf", pre=pre))
        assert len(tokenizer("abc", add_special_tokens=False).input_ids) == number

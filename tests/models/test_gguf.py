"""A GGUF file of a tiny Llama, written here, to a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from rung.errors import ModelError
from rung.models.gguf import convert_gguf
from rung.models.loading import load_model

WIDTH, INNER, HEADS, LAYERS = 32, 64, 4, 2
TOKENS = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]


def write_gguf(path: Path, *, without: str | None = None) -> Path:
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
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

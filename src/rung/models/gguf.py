"""Converts a GGUF file to a Hugging Face folder: weights dequantised to float32, tokenizer, config, chat template.

transformers reads the tensors. The tokenizer is built here from the file's own vocabulary, because
GGUF names the pre-tokenizer ("smollm", "llama-bpe", …) and transformers' converter ignores that
name; `tests/models/test_tokenizer.py` compares the ids with llama.cpp's.
Source of the patterns: llama.cpp, src/llama-vocab.cpp, llm_tokenizer_bpe.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rung.errors import ModelError, first_line
from rung.models.gguf_positions import scale_positions
from rung.models.weights import named

# Pre-tokenizer -> patterns, applied in turn; each splits the pieces of the one before.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_LETTERS}|\p{{N}}|{_REST}"
_PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2_PATTERN,),
    "smollm": (r"\p{N}", GPT2_PATTERN),
    "starcoder": (r"\p{N}", GPT2_PATTERN),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
}
_WHOLE_WORDS = ("llama-bpe", "llama3")  # a word that is a token is that token, whatever the merges say
_CONTROL, _USER_DEFINED = 3, 4  # token types of the GGUF specification


def pre_tokenizer_named(patterns: Sequence[str], *, whole_words: bool) -> str | None:
    """What GGUF calls the pre-tokenizer of these patterns; None where it is none of those known here. whole_words: a
    word that is a token is that token, whatever the merges say."""
    for name, known in _PRE_TOKENIZERS.items():
        if known == tuple(patterns) and (name in _WHOLE_WORDS) == whole_words:
            return name
    return None


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes model.safetensors (float32), config.json and the tokenizer to `folder`.

    Raises ModelError when the file is torn, lacks weights, or its architecture is one that transformers cannot read
    from GGUF.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()), _read_once():  # its progress bar cannot be turned off
            tokenizer = build_tokenizer(gguf)
            read: Any = AutoModelForCausalLM.from_pretrained  # untyped
            network, found = read(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.float32,
                output_loading_info=True,
                **_unpacked(),
            )
            scale_positions(gguf, network.config)
    except ModelError:
        raise
    except Exception as error:
        fact = first_line(error)
        raise ModelError(
            f"model {gguf}: this GGUF file cannot be read ({fact}). "
            "It may be incomplete, or of an architecture that transformers does not know."
        ) from error
    if missing := found["missing_keys"]:
        raise ModelError(
            f"model {gguf}: {len(missing)} weights of its network are missing in this GGUF file: {named(missing)}. "
            "transformers reads it in part only; use the model's Hugging Face folder or id."
        )
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.hf_quantizer = None  # it would refuse to be saved, although its weights are whole now
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Within: a GGUF file is parsed once, whoever asks. transformers parses it for the config and for the weights anew.

    Each time takes 11 s for a vocabulary of 262,144 tokens, as each token, score and type is a slice of a memory map.
    """
    import gguf

    library: Any = gguf
    plain = library.GGUFReader
    once = functools.lru_cache(maxsize=1)(plain)
    library.GGUFReader = lambda path, mode="r": once(str(path))
    try:
        yield
    finally:
        library.GGUFReader = plain


def _unpacked() -> dict[str, Any]:
    """What asks transformers to unpack weights; without it some versions keep them packed where a kernel is there."""
    import transformers

    kind = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": kind(dequantize=True)} if kind is not None else {}


def build_tokenizer(gguf: Path) -> Any:
    """The tokenizer that a GGUF file describes, as a transformers tokenizer."""
    from gguf import GGUFReader

    fields = GGUFReader(str(gguf)).fields

    def read(key: str, default: Any = None) -> Any:
        return fields[f"tokenizer.{key}"].contents() if f"tokenizer.{key}" in fields else default

    kind, pre = read("ggml.model"), read("ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return _byte_level_bpe(read, _PRE_TOKENIZERS[pre], whole_words=pre in _WHOLE_WORDS)


def _byte_level_bpe(read: Any, patterns: tuple[str, ...], *, whole_words: bool) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = read("ggml.tokens")
    types: list[int] = read("ggml.token_type", [1] * len(tokens))
    merges = [tuple(merge.split(" ")) for merge in read("ggml.merges")]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, types, strict=True)
            if kind == _CONTROL
        ]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED]
    )

    def name(key: str) -> str | None:
        index = read(f"ggml.{key}_token_id")
        return tokens[index] if index is not None else None

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=name("bos"),
        eos_token=name("eos"),
        unk_token=name("unknown"),
        pad_token=name("padding") or name("eos"),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = read("chat_template")
    return tokenizer

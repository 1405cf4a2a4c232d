"""The tokenizer built from the GGUF file gives llama.cpp's ids (reference: `python bench/tokenizer.py --write`)."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).with_name("llama_cpp_ids.json")


def bench() -> Any:
    path = Path(__file__).parents[2] / "bench" / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("bench_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_holds_the_strings_of_the_bench_script() -> None:
    texts = [text for text, _ in json.loads(REFERENCE.read_text("utf-8"))]
    assert texts == bench().strings()
    assert len(texts) >= 600


@pytest.mark.embedded
def test_the_converted_tokenizer_gives_llama_cpps_ids(embedded_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder, local_files_only=True)
    wrong = {
        text: (tokenizer.encode(text, add_special_tokens=False), ids)
        for text, ids in json.loads(REFERENCE.read_text("utf-8"))
        if tokenizer.encode(text, add_special_tokens=False) != ids
    }
    assert wrong == {}


@pytest.mark.embedded
def test_ids_of_valid_text_decode_to_the_text(embedded_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder, local_files_only=True)
    spared = 0
    for text, ids in json.loads(REFERENCE.read_text("utf-8")):
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if decoded != text:  # the vocabulary lacks a few bytes; nothing else may be lost
            missing = {c for c in text if tokenizer.decode(tokenizer.encode(c, add_special_tokens=False)) != c}
            assert missing, text
            spared += 1
    assert spared <= 20


@pytest.mark.embedded
def test_llama_cpp_itself_agrees(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    script = bench()
    local = os.environ.get("RUNG_TEST_GGUF")
    texts, ours, theirs, _ = script.compare(Path(local) if local else script.catalogue_gguf(tmp_path))
    assert [t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b] == []

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tokenizer_shapes as shapes
from export_cases import ask_of
from rung.models.chat_template import ChatFormat
from rung.serving.exports import export_named
from rung.serving.exports.export import ExportOptions, ExportSource
from rung.serving.exports.exporting import export
from rung.serving.exports.ollama import _modelfile, joins_of
from rung.serving.exports.tokenizer_files import chat_of
from rung.testing.fakes import TINY_TEMPLATE, _tiny_tokenizer
from rung.types import Message

SYSTEM, USER = Message("system", "Answer."), Message("user", "What is a card?")
TALK = [USER, Message("assistant", "A plastic one."), Message("user", "no")]
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nHi<|im_end|>\\n' }}{% endif %}" + TINY_TEMPLATE
)
TOKENIZERS: dict[str, Any] = {
    "ChatML": lambda: _tiny_tokenizer(TINY_TEMPLATE),
    "own system": lambda: _tiny_tokenizer(DEFAULT_SYSTEM),
    "no template": lambda: _tiny_tokenizer(None),
    "Gemma": lambda: shapes.metaspace("never", shapes.GEMMA, ["<start_of_turn>", "<end_of_turn>"]),
    "Qwen 3": lambda: shapes.byte_level(shapes.QWEN_3, [], ["<think>", "</think>"]),
    "Zephyr": lambda: shapes.metaspace("legacy", shapes.ZEPHYR),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_template_for_ollama_gives_the_tokens_of_the_bundles_prompts(name: str) -> None:
    chat = ChatFormat(TOKENIZERS[name]())
    joins = joins_of(chat)
    for turns in ([USER], [SYSTEM, USER], [SYSTEM, *TALK], TALK):
        rendered = turns if turns[0].role == "system" else [Message("system", ""), *turns]
        assert chat.tokenizer.encode(joins.written(turns)) == chat.encode(rendered), turns


def test_the_go_template_holds_texts_as_quoted_constants() -> None:
    written = joins_of(ChatFormat(_tiny_tokenizer(TINY_TEMPLATE))).go_template()
    assert '{{- if eq $m.Role "system" }}{{ "<|im_start|>system\\n" }}{{ $m.Content }}\n' in written
    assert '{{- else if and (eq $i 1) $.System }}{{ "<|im_end|>\\n<|im_start|>user\\n" }}{{ $m.Content }}\n' in written
    assert written.endswith('{{- end -}}{{ "<|im_end|>\\n<|im_start|>assistant\\n" }}')


def test_the_context_of_a_modelfile_holds_the_longest_prompt(source: ExportSource) -> None:
    chat, solution = chat_of(source.base), source.packed.solution
    long = ask_of("card " * 9_000, "x")
    needed = len(chat.encode(long.request.messages)) + long.request.decoding.max_new_tokens
    written = _modelfile(["base.gguf"], chat, solution, joins_of(chat), [long])
    (context,) = (int(line.split()[2]) for line in written.splitlines() if line.startswith("PARAMETER num_ctx"))
    assert needed > 8_192 and needed <= context < 2 * needed


def test_a_modelfile_says_all_that_decides_an_answer(source: ExportSource, tmp_path: Path) -> None:
    export(source, export_named("ollama"), tmp_path / "out", ExportOptions(quantise="q8_0"), parity=False)
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[:2] == ["FROM ./base-q8_0.gguf", "ADAPTER ./adapter.gguf"]
    assert 'SYSTEM """Answer."""' in lines and 'PARAMETER stop "<|im_end|>"' in lines
    assert {"PARAMETER temperature 0", "PARAMETER repeat_penalty 1.0", "PARAMETER num_predict 8"} <= set(lines)

"""An answer has one encoding: what the template's own conversation gives for it behind its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_shapes as shapes
from rung.engine.grammar import Grammars
from rung.models.chat_template import ChatFormat
from rung.models.thinking import PAIRS
from rung.types import Constraint, Message

SPACED_MARKS = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")


def phi_3(scheme: str) -> Any:
    """Its marks swallow the line feed behind them."""
    from tokenizers import AddedToken

    tokenizer = shapes.metaspace(scheme, shapes.PHI_3)
    marks = [AddedToken(mark, special=True, normalized=False, rstrip=True) for mark in SPACED_MARKS]
    tokenizer.add_tokens(marks, special_tokens=True)
    return tokenizer


FORMATS = {
    "byte-level ChatML": lambda: shapes.byte_level(shapes.CHATML),
    "byte-level base": shapes.byte_level,
    "Metaspace base": lambda: shapes.metaspace("first"),
    "Llama 2": lambda: shapes.metaspace("legacy", shapes.LLAMA_2),
    "Mistral 0.1": lambda: shapes.metaspace("always", shapes.MISTRAL_01),
    "Mistral 0.3": lambda: shapes.metaspace("legacy", shapes.MISTRAL_03, ["[INST]", "[/INST]"]),
    "Mistral Nemo": lambda: shapes.byte_level(shapes.MISTRAL_03, ["[INST]", "[/INST]"]),
    "TinyLlama": lambda: shapes.metaspace("legacy", shapes.ZEPHYR),
    "Phi-3": lambda: phi_3("legacy"),
    "Phi-3, always": lambda: phi_3("always"),
    "Gemma": lambda: shapes.metaspace("never", shapes.GEMMA, ["<start_of_turn>", "<end_of_turn>"]),
    "Unigram": lambda: shapes.unigram(shapes.ZEPHYR),
    "Unigram base": shapes.unigram,
    "GLM": lambda: shapes.byte_level(shapes.GLM_4, ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"]),
    "gpt-oss": lambda: shapes.byte_level(shapes.GPT_OSS, shapes.GPT_OSS_MARKS),
    "R1": lambda: shapes.byte_level(shapes.R1_DISTILL, shapes.R1_MARKS, ["<think>", "</think>"]),
}
ANSWERS = (
    "card", " card", "  card", "card ", "\ncard", "\n\n  card\n", "def f():\n    return 1\n", ":", "//x", "</s>",
    "<s>x", "<unk>", "x<|im_end|>y", "[INST] a [/INST]", "</think>", "<|end|>", "<|channel|>final", "größe",
    "日本 😀", "e\u0301", "\t", " ", "\u00a0", "\u200b", "\U000f0000", "\U00100000x",
)  # fmt: skip
SPECIAL = ("</s>", "<s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "<|end|>", "<｜User｜>")
TEXTS = st.lists(st.text() | st.sampled_from([" ", "  ", "\n", "card", ":", *SPECIAL]), max_size=5).map("".join)


@pytest.fixture(scope="module")
def formats() -> dict[str, ChatFormat]:
    return {name: ChatFormat(make()) for name, make in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_an_encoded_answer_decodes_to_its_text(formats: dict[str, ChatFormat], name: str) -> None:
    format = formats[name]
    assert [text for text in ANSWERS if format.decode(format.encode_answer(text)[:-1]) != text] == []
    assert format.encode_answer("") == [format.end_id]


@given(name=st.sampled_from(sorted(FORMATS)), text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_any_answer_decodes_to_its_text(formats: dict[str, ChatFormat], name: str, text: str) -> None:
    format = formats[name]
    spelt = any(start in text for start, _ in PAIRS) or "\n\nUser:" in text
    if not spelt:
        assert format.decode(format.encode_answer(text)[:-1]) == text


def test_text_that_spells_a_thought_is_an_answer_where_the_tags_are_tokens(formats: dict[str, ChatFormat]) -> None:
    format = formats["R1"]
    for text in ("<think>a</think>b", "<think>", "</think>"):
        assert format.decode(format.encode_answer(text)[:-1]) == text


@pytest.mark.parametrize("text", ["/x", "//", ":/", " x", "x", ""])
def test_an_answer_that_merges_with_the_end_of_its_prompt_is_encoded_behind_it(text: str) -> None:
    joined = (
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    format = ChatFormat(shapes.metaspace("never", joined))
    merged = format.tokenizer.encode(":/", add_special_tokens=False)
    assert len(merged) == 1, "the case that this test is about"
    prompt = format.encode([Message("user", "q")])
    assert format.tokenizer.convert_ids_to_tokens(prompt[-1]) == ":"
    answer = format.encode_answer(text)[:-1]
    assert format.tokenizer.decode([*prompt, *answer]).endswith("assistant:" + text)
    assert format.decode(answer) == text


def test_a_word_piece_tokenizer_gives_the_words_back() -> None:
    format = ChatFormat(shapes.word_piece())
    assert [format.decode(format.encode_answer(text)[:-1]) for text in ("card", "no card", "a : b")] == [
        "card",
        "no card",
        "a : b",
    ]


@pytest.mark.embedded
@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_the_embedded_models_answers_decode_to_their_text(embedded_format: ChatFormat, text: str) -> None:
    ids = embedded_format.encode_answer(text)[:-1]
    lost = {c for c in text if embedded_format.tokenizer.decode(embedded_format.tokenizer.encode(c)) != c}
    assert lost or text.startswith("<think>") or embedded_format.decode(ids) == text


@pytest.fixture(scope="module")
def embedded_format(embedded_folder: Path) -> ChatFormat:
    from transformers import AutoTokenizer

    return ChatFormat(AutoTokenizer.from_pretrained(embedded_folder, local_files_only=True))


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"R1"}))
def test_prompt_and_answer_are_the_conversation_that_the_template_writes(
    formats: dict[str, ChatFormat], name: str
) -> None:
    format, user = formats[name], Message("user", "which card?")
    for answer in ("card", "no card", "a\n  b"):
        whole = format.encode_whole([user, Message("assistant", answer)])
        learnt = [*format.encode([user]), *format.encode_answer(answer)[:-1]]
        assert whole[: len(learnt)] == learnt


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"R1", "gpt-oss"}))
def test_demos_show_answers_in_the_ids_that_are_trained(formats: dict[str, ChatFormat], name: str) -> None:
    format, user = formats[name], Message("user", "which card?")
    answer = format.encode_answer("card")[:-1]
    shown = format.encode([user, Message("assistant", "card"), user])
    assert any(shown[i : i + len(answer)] == answer for i in range(len(shown)))
    assert shown[: len(format.encode([user])) + len(answer)] == [*format.encode([user]), *answer]


def test_what_stands_before_an_answer_is_derived_from_the_template(formats: dict[str, ChatFormat]) -> None:
    def tokens(name: str) -> list[str]:
        format = formats[name]
        return list(format.tokenizer.convert_ids_to_tokens(format.encode_answer("card")))

    assert tokens("byte-level base") == ["Ġcard", "<|im_end|>"], "demos read `Assistant: card`"
    assert tokens("Metaspace base") == tokens("Llama 2") == tokens("Mistral 0.1") == ["▁card", "</s>"]
    assert tokens("Phi-3") == ["▁card", "<|end|>"] and tokens("TinyLlama") == ["card", "</s>"]
    assert tokens("GLM")[0] == "Ċ"


LABELS = ("card", "card no", "no", "no </s>", "x<|im_end|>y", "größe 日本", "a  b", "//x", "{a}")
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["card", "no</s>x"]}, "n": {"type": "integer"}, "t": {"type": "string"}},
    "required": ["kind", "n", "t"],
    "additionalProperties": False,
}
CONSTRAINED = [
    *((Constraint("labels", LABELS), label) for label in LABELS),
    (Constraint("json_schema", SCHEMA), '{"kind":"card","n":12,"t":"a car no"}'),
    (Constraint("json_schema", SCHEMA), '{"kind":"no</s>x","n":-5,"t":"<|im_end|> ß日"}'),
    (Constraint("regex", r"\d{2}/card( no)?"), "12/card no"),
    (Constraint("regex", r"(.|\n)+"), "</s> card\n: :/ 😀"),
    (Constraint("regex", "card|no"), "card"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_grammar_allows_every_token_that_training_teaches(formats: dict[str, ChatFormat], name: str) -> None:
    format = formats[name]
    grammars = Grammars(format.answer_tokens(), len(format.tokenizer))
    for constraint, text in CONSTRAINED:
        matcher = grammars.matcher(constraint)
        for token in format.encode_answer(text):
            assert matcher.allowed()[token], (text, format.tokenizer.convert_ids_to_tokens(token))
            matcher.consume(token)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_grammar_lets_through_decodes_to_what_it_demands(formats: dict[str, ChatFormat], name: str) -> None:
    format = formats[name]
    grammars = Grammars(format.answer_tokens(), len(format.tokenizer))
    for seed in range(8):
        draw, matcher, ids = (
            np.random.default_rng(seed),
            grammars.matcher(Constraint("regex", "(card|no) [a-c]{3}")),
            [],
        )
        while not ids or ids[-1] not in format.stop_ids:
            ids.append(int(draw.choice(np.flatnonzero(matcher.allowed()))))
            matcher.consume(ids[-1])
            ids += matcher.forced() if ids[-1] not in format.stop_ids else []
        word, _, rest = format.decode(ids[:-1]).partition(" ")
        assert word in ("card", "no") and len(rest) == 3 and set(rest) <= set("abc")


def test_a_schema_needs_a_tokenizer_that_keeps_its_spacing() -> None:
    from rung.errors import ConstraintError

    format = ChatFormat(shapes.word_piece())
    grammars = Grammars(format.answer_tokens(), len(format.tokenizer))
    with pytest.raises(ConstraintError, match="schema: "):
        grammars.matcher(Constraint("json_schema", SCHEMA))


def test_any_token_that_may_end_an_answer_may_end_a_constrained_one() -> None:
    format = ChatFormat(shapes.byte_level(shapes.CHATML.replace("<|im_end|>", "<|endoftext|>")))
    assert len(format.stop_ids) == 2
    for constraint in (Constraint("labels", ("a", "ab")), Constraint("regex", "ab?")):
        matcher = Grammars(format.answer_tokens(), len(format.tokenizer)).matcher(constraint)
        matcher.consume(format.encode_answer("a")[0])
        assert matcher.allowed()[sorted(format.stop_ids)].all()

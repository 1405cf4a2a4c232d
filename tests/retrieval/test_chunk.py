from __future__ import annotations

import random

import pytest

from rung.retrieval.chunk import chunk, document_id
from rung.text import units
from rung.types import Document


def prose(sentences: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    made = [
        " ".join(f"w{draw.randint(0, 99)}" for _ in range(draw.randint(1, 30))) + draw.choice(".!?")
        for _ in range(sentences)
    ]
    return "".join(sentence + draw.choice([" ", "  ", "\n", "\n\n"]) for sentence in made)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_words", [1, 7, 40, 180])
def test_passages_keep_every_word_in_order_and_stay_short(seed: int, max_words: int) -> None:
    text = prose(60, seed)
    passages = chunk([Document("d", text, title="T")], max_words=max_words)
    assert " ".join(p.text for p in passages).split() == text.split()
    assert all(0 < len(p.text.split()) <= max_words for p in passages)
    assert [p.id for p in passages] == [f"d#{i}" for i in range(1, len(passages) + 1)]
    assert {p.title for p in passages} == {"T"}


def test_a_short_document_stays_as_it_is() -> None:
    documents = [Document("a", "One  line.\n\nAnd   another. "), Document("b", ""), Document("c#2", "x", title="t")]
    assert chunk(documents) == tuple(documents)


def test_cuts_fall_on_sentence_ends_where_there_are_any() -> None:
    text = "one two three. four five six. seven eight nine."
    assert [p.text for p in chunk([Document("d", text)], max_words=6)] == [
        "one two three. four five six.",
        "seven eight nine.",
    ]


def test_text_without_sentences_is_cut_by_words() -> None:
    passages = chunk([Document("d", " ".join(str(i) for i in range(25)))], max_words=10)
    assert [len(p.text.split()) for p in passages] == [10, 10, 5]


def test_a_passage_knows_its_document() -> None:
    for id_ in ("d", "a#b", "x y"):
        for passage in chunk([Document(id_, prose(40))], max_words=20):
            assert document_id(passage.id) == id_
    assert document_id("whole") == "whole"


def test_a_long_chinese_document_is_cut_at_its_sentences() -> None:
    sentence = "银行卡丢失后请立即挂失，可以免费补办。"
    passages = chunk([Document("d", sentence * 60)])
    assert len(passages) > 3
    assert all(p.text.endswith("。") and len(units(p.text)) <= 180 for p in passages)
    assert "".join(p.text for p in passages) == sentence * 60


def test_closing_quotes_stay_with_their_sentence() -> None:
    text = "彼は「はい。」と言った。私は「いいえ。」と言った。"
    assert [p.text for p in chunk([Document("d", text)], max_words=10)] == [text[:12], text[12:]]


def test_thai_without_sentence_signs_is_cut_between_characters_and_loses_nothing() -> None:
    text = "ถ้าทำบัตรหายให้แจ้งอายัดทันที" * 40
    passages = chunk([Document("d", text)], max_words=100)
    assert all(len(units(p.text)) <= 100 for p in passages)
    assert "".join(p.text for p in passages) == text


def test_one_word_of_many_parts_is_not_cut() -> None:
    text = "see " + "/".join(f"part{i}" for i in range(30)) + " for more"
    assert [p.text for p in chunk([Document("d", text)], max_words=10)] == text.split(" ", 2)

from __future__ import annotations

import math
import random
import re

import pytest

from rung.retrieval.bm25 import BM25
from rung.types import Document, Query

TEXTS = [
    "Cards arrive within five working days.",
    "A lost card is replaced for free.",
    "Class B drivers need a licence; class A drivers need two.",
    "Transfers to another bank take one day.",
    "The card limit is 7 withdrawals a day. The limit resets at midnight.",
    "Vitamin C is found in oranges.",
]


def documents(texts: list[str]) -> list[Document]:
    return [Document(f"d{i}", text) for i, text in enumerate(texts)]


def queries(*texts: str) -> list[Query]:
    return [Query(str(i), text) for i, text in enumerate(texts)]


def ids(index: BM25, query: str, k: int = 10) -> list[str]:
    return [d.id for d in index.search(queries(query), k)[0]]


def formula(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """BM25 with Lucene's idf, written from the formula."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for row in words:
        score = 0.0
        for word in re.findall(r"\w+", query.lower()):
            holding = sum(word in other for other in words)
            frequency = row.count(word)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            score += idf * frequency / (frequency + k1 * (1 - b + b * len(row) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_the_formula(seed: int) -> None:
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(30)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(3, 25))) for _ in range(40)]
    index = BM25(documents(texts))
    for _ in range(10):
        query = " ".join(draw.sample(vocabulary, 4))
        scores = formula(texts, query)
        expected = sorted((i for i in range(40) if scores[i] > 0), key=lambda i: (-round(scores[i], 5), i))[:10]
        found = [int(i[1:]) for i in ids(index, query)]
        assert [round(scores[i], 4) for i in found] == [round(scores[i], 4) for i in expected]
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 50])
def test_equal_passages_are_ranked_by_their_position(k: int) -> None:
    texts = [word for _ in range(30) for word in ("same words here", "something else", "words here same")]
    expected = [i for i in range(90) if i % 3 != 1][:k]
    assert ids(BM25(documents(texts)), "same words", k) == [f"d{i}" for i in expected]


def test_words_of_one_character_count() -> None:
    index = BM25(documents(TEXTS))
    assert ids(index, "C")[0] == "d5"
    assert ids(index, "class B")[0] == "d2"
    assert ids(index, "7") == ["d4"]


def test_passages_that_share_no_word_are_left_out() -> None:
    index = BM25(documents(TEXTS))
    assert ids(index, "transfers") == ["d3"]
    assert ids(index, "zebra") == []


def test_case_does_not_matter() -> None:
    index = BM25(documents(TEXTS))
    assert ids(index, "VITAMIN") == ids(index, "vitamin") == ["d5"]


@pytest.mark.parametrize("query", ["", " ", "?!", "\n"])
def test_a_query_without_words_finds_nothing(query: str) -> None:
    index = BM25(documents(TEXTS))
    assert ids(index, query) == []
    assert [len(row) for row in index.search(queries("card", query, "oranges"), 3)] == [2, 0, 1]


def test_no_queries_find_nothing() -> None:
    assert BM25(documents(TEXTS)).search([], 3) == []


def test_more_may_be_asked_for_than_there_is() -> None:
    assert len(ids(BM25(documents(TEXTS)), "a the card day need", 100)) <= len(TEXTS)
    assert ids(BM25(documents(["one"])), "one", 5) == ["d0"]


@pytest.mark.parametrize("texts", [[], [""], ["", "?"]])
def test_a_corpus_without_words_finds_nothing(texts: list[str]) -> None:
    assert ids(BM25(documents(texts)), "card") == []


def test_the_title_is_searched_too() -> None:
    index = BM25([Document("a", "It is red."), Document("b", "It is blue.", title="Sky")])
    assert ids(index, "sky") == ["b"]


def test_a_query_gives_the_same_ranks_alone_and_among_others() -> None:
    index = BM25(documents(TEXTS))
    asked = queries("card limit", "class", "zebra", "day", "oranges bank")
    assert index.search(asked, 3) == [index.search([q], 3)[0] for q in asked]


def test_words_of_other_scripts_are_found() -> None:
    index = BM25(documents(["größe der karte", "карта потеряна", "カード 紛失"]))
    assert ids(index, "GRÖSSE größe") == ["d0"]
    assert ids(index, "карта") == ["d1"]
    assert ids(index, "カード") == ["d2"]


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        (
            "银行卡丢失怎么办",
            ["转账到其他银行需要一天。", "银行卡丢失后请立即挂失，可以免费补办。", "每天可以取款七次。"],
        ),
        (
            "カードを紛失しました",
            ["送金は一日かかります。", "限度額は深夜に更新されます。", "紛失したカードは無料で再発行します。"],
        ),
        ("บัตรหายทำอย่างไร", ["การโอนเงินใช้เวลาหนึ่งวัน", "ถ้าทำบัตรหายให้แจ้งอายัดทันที", "ถอนเงินได้เจ็ดครั้งต่อวัน"]),
        (
            "카드를 분실했어요",
            ["이체는 하루가 걸립니다.", "한도는 자정에 초기화됩니다.", "분실 카드는 무료로 재발급됩니다."],
        ),
        ("ຂ້ອຍເຮັດບັດເສຍ", ["ການໂອນເງິນໃຊ້ເວລາມື້ໜຶ່ງ", "ຖ້າບັດເສຍໃຫ້ແຈ້ງທັນທີ", "ຖອນເງິນໄດ້ເຈັດຄັ້ງ"]),
    ],
    ids=["Chinese", "Japanese", "Thai", "Korean", "Lao"],
)
def test_a_question_is_answered_in_scripts_without_spaces_between_words(question: str, texts: list[str]) -> None:
    right = {"银": "d1", "カ": "d2", "บ": "d1", "카": "d2", "ຂ": "d1"}[question[0]]
    assert ids(BM25(documents(texts)), question)[0] == right


def test_full_width_letters_and_half_width_kana_are_the_same_words() -> None:
    index = BM25(documents(["ＡＢＣ銀行", "ｶｰﾄﾞ"]))
    assert ids(index, "abc") == ["d0"]
    assert ids(index, "カード")[0] == "d1"


def test_vowel_signs_do_not_cut_words() -> None:
    index = BM25(documents(["हिन्दी में लिखें", "हद पार"]))
    assert ids(index, "हिन्दी") == ["d0"]

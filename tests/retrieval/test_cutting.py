"""Passages by structure and of so many tokens."""

from __future__ import annotations

import random
import time
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rung.retrieval.chunk import chunk, document_id
from rung.retrieval.structure import may_be_cut
from rung.text import units
from rung.types import Document


def by_spaces(text: str) -> int:
    return len(text.split())


def by_bytes(text: str) -> int:
    """Like a tokenizer of bytes: about four letters a token; the whole is not the sum of its parts."""
    return sum(-(-len(word.encode()) // 4) for word in text.split()) + text.count("\n\n")


def whole_text(passage: Document) -> str:
    return f"{passage.title}: {passage.text}" if passage.title else passage.text


def in_order(words: list[str], among: list[str]) -> bool:
    rest = iter(among)
    return all(word in rest for word in words)


PLACES = st.sampled_from(
    ["A", "b", "word", "Word.", "e.g.", "3.5", "25,000", "ü", "e\u0301", "字", "银行卡", "。", "，", "」"]
)
OTHERS = st.sampled_from(
    ["ถ้าทำบัตร", "카드를 잃어버렸다.", "កម្ពុជា", "က္က", "👨‍👩‍👧", "🇫🇷🇩🇪", "x" * 50, "a-b/c", "|", "#", "- "]
)
MARKS = (
    "\n# H\n",
    "\n## Two words\n",
    "\n- item ",
    "\n1. ",
    "\n| a | b |\n|---|---|\n| c | d |\n",
    "\n```\ncode = 1\n```\n",
)
SPACES = st.sampled_from([" ", " ", " ", "", "  ", "\n", "\n\n", "\f", "\r\n", "\t", *MARKS])
TEXTS = st.lists(st.one_of(PLACES, OTHERS, SPACES), max_size=80).map("".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    TEXTS,
    st.integers(4, 60),
    st.integers(0, 20),
    st.booleans(),
    st.sampled_from([None, "T", "A long title of seven words"]),
)
@example("# A\n## B b b b b b b b b\n### C c c c c c\nx y z\n## D\n", 8, 0, True, "T")
def test_nothing_is_lost_and_no_passage_is_too_large(
    text: str, tokens: int, overlap: int, markdown: bool, title: str | None
) -> None:
    document = Document("d", text, title, markdown=markdown)
    passages = chunk([document], tokens=tokens, overlap=overlap, count_tokens=by_bytes)
    assert passages == chunk([document], tokens=tokens, overlap=overlap, count_tokens=by_bytes)
    assert {document_id(p.id) for p in passages} == {"d"} and len({p.id for p in passages}) == len(passages)
    for passage in passages:
        assert passage.text.strip() or not text.strip()
        if text.strip() and by_bytes(whole_text(passage)) > tokens:
            assert not any(may_be_cut(passage.text, i) for i in range(1, len(passage.text)))
    characters = Counter("".join(text.split()))
    seen = Counter("".join("".join(whole_text(p).split()) for p in passages))
    assert not (characters - seen).keys() - set("#*`=-"), "every character is in some passage"


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(4, 60), st.integers(0, 20))
def test_text_without_headings_stands_in_passages_in_order(text: str, tokens: int, overlap: int) -> None:
    passages = chunk([Document("d", text)], tokens=tokens, overlap=overlap, count_tokens=by_bytes)
    joined = "".join("".join(p.text.split()) for p in passages)
    if overlap:
        assert in_order(list("".join(text.split())), list(joined))
    else:
        assert joined == "".join(text.split())


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 40))
def test_documents_with_headings_and_pages_keep_their_words_at_the_default_size_too(text: str, most: int) -> None:
    passages = chunk([Document("d", text, markdown=True)], max_words=most)
    for passage in passages:
        assert len(units(passage.text)) <= most or not any(
            may_be_cut(passage.text, i) for i in range(1, len(passage.text))
        )
    found = Counter(unit for p in passages for unit in "".join(units(whole_text(p))))
    assert not Counter("".join(units(text))) - found


HANDBOOK = """# Handbook

Welcome. This is short.

## Leave

### Annual leave

Everyone has 25 days.

### Sick leave

Call before nine.

## Pay

{filler}
"""


def test_a_passage_is_titled_by_the_headings_it_stands_under() -> None:
    text = HANDBOOK.format(filler="Pay day is the last day. " * 10)
    passages = chunk([Document("h", text, "Handbook", markdown=True)], tokens=19, count_tokens=by_spaces)
    assert [p.title for p in passages[:3]] == ["Handbook", "Handbook › Leave", "Handbook › Pay"]
    assert passages[1].text == "### Annual leave\nEveryone has 25 days.\n\n### Sick leave\nCall before nine."
    assert {p.title for p in passages[2:]} == {"Handbook › Pay"}
    assert [p.id for p in passages] == [f"h#{i}" for i in range(1, len(passages) + 1)]


def test_large_neighbours_stand_alone_under_their_own_headings() -> None:
    text = HANDBOOK.format(filler="x")
    passages = chunk([Document("h", text, "Book", markdown=True)], tokens=16, count_tokens=by_spaces)
    assert [(p.title, p.text) for p in passages] == [
        ("Book › Handbook", "Welcome. This is short."),
        ("Book › Handbook › Leave › Annual leave", "Everyone has 25 days."),
        ("Book › Handbook › Leave › Sick leave", "Call before nine."),
        ("Book › Handbook › Pay", "x"),
    ]


def test_a_document_that_fits_keeps_its_id_and_its_text() -> None:
    documents = [
        Document("a", "# One\n\n  text ", "T", markdown=True),
        Document("b", ""),
        Document("c", "one\ftwo"),
        Document("d", "   "),
    ]
    found = chunk(documents, tokens=20, count_tokens=by_spaces)
    assert found[:2] == (documents[0], documents[1])
    assert found[2] == Document("c", "one\ntwo", page=1, last_page=2)
    assert found[3] == documents[3]
    assert chunk(documents) == found, "also at the default size"


def test_a_passage_has_the_page_that_it_begins_on() -> None:
    text = "The first page ends here.\fThe second one is a little longer. It has two sentences.\f\fThe fourth."
    found = chunk([Document("d", text)], tokens=7, count_tokens=by_spaces)
    assert [(p.page, p.text) for p in found] == [
        (1, "The first page ends here."),
        (2, "The second one is a little longer."),
        (2, "It has two sentences.\nThe fourth."),
    ]
    assert chunk([Document("d", text, page=7)], tokens=7, count_tokens=by_spaces)[-1].page == 8


def test_a_passage_of_several_pages_has_the_last_one_too() -> None:
    small = Document("six.pdf", "\f".join(["", "Two.", "Three.", "Four.", "Five.", "Six.", " "]), markdown=True)
    (whole,) = chunk([small])
    assert (whole.page, whole.last_page) == (2, 6), "pages without text are none of it"
    text = "The first page ends here.\fThe second one is a little longer. It has two sentences.\f\fThe fourth."
    found = chunk([Document("d", text)], tokens=7, count_tokens=by_spaces)
    assert [(p.page, p.last_page) for p in found] == [(1, None), (2, None), (2, 4)]
    assert chunk([Document("d", "One page.", page=3, markdown=True)])[0].last_page is None


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Warranty", "# Warranty\n\nTwo years.", "Two years."),
        ("Book › Warranty", "## **Warranty** ##\nTwo years.", "Two years."),
        ("Warranty", "Warranty\n===\n\nTwo years.\n", "Two years.\n"),
        ("Warranty", "# Warranty", "# Warranty"),
        ("Warranty", "# Warranty of parts\n\nTwo years.", "# Warranty of parts\n\nTwo years."),
        ("Warranty", "Warranty lasts for\ntwo years.", "Warranty lasts for\ntwo years."),
        (None, "# Warranty\n\nTwo years.", "# Warranty\n\nTwo years."),
    ],
)
def test_a_heading_that_the_title_ends_with_stands_there_alone(title: str | None, text: str, expected: str) -> None:
    (whole,) = chunk([Document("w.md", text, title, markdown=True)])
    assert (whole.id, whole.title, whole.text) == ("w.md", title, expected)
    assert chunk([Document("w.txt", text, title)])[0].text == text, "of plain text a line is no heading"


def test_the_first_passage_of_a_cut_document_does_not_repeat_its_title() -> None:
    text = "# Warranty\n\nAll of it.\n\n## Parts\n\nTwo years. And more.\n\n## Work\n\nOne year. And less.\n"
    for tokens in (7, 9, 11, 15, 17):
        found = chunk([Document("w.md", text, "Warranty", markdown=True)], tokens=tokens, count_tokens=by_spaces)
        assert not any("# Warranty" in p.text for p in found) and found[0].text.startswith("All of it."), tokens


def test_a_sentence_that_runs_over_a_page_is_not_cut_there_where_a_better_place_is_near() -> None:
    text = "One two three four five. Six seven\feight nine ten. Eleven twelve."
    found = chunk([Document("d", text)], tokens=8, count_tokens=by_spaces)
    assert [p.text for p in found] == ["One two three four five.", "Six seven\neight nine ten. Eleven twelve."]


def test_overlap_begins_at_a_sentence_and_never_crosses_a_heading() -> None:
    sentences = [f"Sentence number {i} is here." for i in range(12)]
    text = "# A\n\n" + " ".join(sentences) + "\n\n# B\n\n" + " ".join(sentences).replace("here", "there")
    found = chunk([Document("d", text, markdown=True)], tokens=22, overlap=6, count_tokens=by_spaces)
    a, b = ([p for p in found if p.title == title] for title in "AB")
    for part in (a, b):
        assert len(part) > 2
        for before, after in pairwise(part):
            repeated = after.text.partition(". ")[0]
            assert before.text.endswith(f"{repeated}."), "the last sentence of one is the first of the next"
    assert b[0].text.startswith("Sentence number 0 is there.")


def test_a_cut_table_repeats_its_header_and_rows_stay_whole() -> None:
    rows = [f"| grade {i} | {1000 * i} |" for i in range(20)]
    text = "# Pay\n\nAs follows:\n\n| grade | pay |\n|---|---|\n" + "\n".join(rows) + "\n"
    found = chunk([Document("d", text, markdown=True)], tokens=40, count_tokens=by_spaces)
    assert len(found) > 2
    for passage in found[1:]:
        first, rule, *rest = passage.text.split("\n")
        assert (first, rule) == ("| grade | pay |", "|---|---|") and rest and all(row in rows for row in rest)
    assert [r for p in found for r in p.text.split("\n") if r in rows] == rows


def test_code_that_fits_is_not_cut_and_its_comments_are_no_headings() -> None:
    code = "```sh\n# install\npip install a b c\n\n# run\na --b c\n```"
    text = "Words before the code that fill the passage so that all of it does not fit.\n\n" + code + "\n\nBehind it."
    found = chunk([Document("d", text, markdown=True)], tokens=18, count_tokens=by_spaces)
    assert {p.title for p in found} == {None}
    assert any(code in p.text for p in found)


def test_list_items_are_cut_apart_and_a_number_is_no_sentence() -> None:
    text = "\n".join(f"{i}. Step {i} has a text. And a second one." for i in range(1, 9))
    found = chunk([Document("d", text)], tokens=22, count_tokens=by_spaces)
    assert all(p.text.split()[0].rstrip(".").isdigit() for p in found)


@pytest.mark.parametrize(
    ("sentence", "end"),
    [("银行卡丢失后请立即挂失，可以免费补办。", "。"), ("カードを失くしたら電話してください。", "。"),
     ("카드를 잃어버리면 바로 신고하세요. ", "."), ("ប្រសិនបើអ្នកបាត់កាត សូមទូរស័ព្ទមក។", "។"), ("ကတ်ပျောက်ရင် ဖုန်းဆက်ပါ။", "။")],
)  # fmt: skip
def test_sentences_of_other_scripts_stay_whole(sentence: str, end: str) -> None:
    found = chunk([Document("d", sentence * 40)], tokens=200, count_tokens=lambda text: len(text.encode()) // 3)
    assert len(found) > 3 and all(p.text.endswith(end) for p in found)


def test_text_without_spaces_is_cut_between_whole_characters() -> None:
    for character in ("ก็", "e\u0301\u0323", "👨‍👩‍👧", "🇫🇷", "ကြွ", "क्षि", "เ" + "ก", "\ud83d\ude00"):
        for width in range(3, 12):
            found = chunk([Document("d", character * 50)], tokens=width * 2, count_tokens=len)
            assert "".join(p.text for p in found) == character * 50
            for passage in found:
                assert len(passage.text) % len(character) == 0, (character, passage.text)
                assert not unicodedata.combining(passage.text[0])


def test_a_title_that_is_too_long_leaves_room_for_the_text_and_loses_no_heading() -> None:
    heading = " ".join(f"h{i}" for i in range(40))
    text = f"# {heading}\n\n## Sub\n\n{'word ' * 100}"
    found = chunk([Document("d", text, "t " * 30, markdown=True)], tokens=20, count_tokens=by_spaces)
    assert all(by_spaces(whole_text(p)) <= 20 for p in found)
    assert in_order(heading.split(), " ".join(whole_text(p) for p in found).split())


class Counting:
    """Counts what it is asked to count."""

    def __init__(self) -> None:
        self.calls = self.characters = 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        self.characters += len(text)
        return -(-len(text) // 4)


@pytest.mark.parametrize("kind", ["prose", "short lines", "one line of words", "one word", "one line of Chinese"])
def test_a_tokenizer_is_called_a_few_times_a_passage_whatever_the_length(kind: str) -> None:
    draw = random.Random(0)
    texts = {
        "prose": " ".join("word " * draw.randint(3, 25) + "end." for _ in range(8_000)),
        "short lines": "".join(f"line {i}\n" for i in range(60_000)),
        "one line of words": "word " * 120_000,
        "one word": "x" * 600_000,
        "one line of Chinese": "字" * 200_000,
    }
    count = Counting()
    started = time.process_time()
    found = chunk([Document("d", texts[kind])], tokens=256, overlap=32, count_tokens=count)
    assert time.process_time() - started < 10
    assert count.calls < 6 * len(found), (count.calls, len(found))
    assert count.characters < 5 * len(texts[kind])
    assert len(found) < 2 * len(texts[kind]) / 4 / 256 * 256 / 224 + 2, "passages are mostly full"

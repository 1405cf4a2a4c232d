from __future__ import annotations

import pytest

from rung.text import normal_form, pieces, seen, units, visible, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("GRÖSSE größe", ["grösse", "grösse"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("银行卡。", ["银", "行", "卡"]),
        ("บัตรที่", ["บั", "ต", "ร", "ที่"]),  # marks stay with their letter
        ("카드를 분실", ["카드를", "분실"]),
        ("ＡＢＣ ｶｰﾄﾞ", ["abc", "カ", "ー", "ド"]),
        ("", []),
        ("?!。", []),
    ],
)
def test_units_are_words_or_the_characters_of_scripts_without_spaces(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_signs_count_where_they_are_asked_for() -> None:
    assert units("2 + 2 < 5, right?", signs=True) == ["2", "+", "2", "<", "5", "right"]
    assert units("二＋二", signs=True) == ["二", "+", "二"]
    assert units("2 + 2") == ["2", "2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lost card", ["lost", "card"]),
        ("银行卡 A", ["银", "行", "卡", "银行", "行卡", "a"]),
        ("카드를", ["카드를", "카드", "드를"]),
        ("카드", ["카드"]),
        ("卡", ["卡"]),
    ],
)
def test_words_hold_pairs_of_characters_too(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize("text", ["plain words, e.g. 2 + 2 don't", "x_y 'quoted' 5% a.b@c.de", "tab\tand\nline"])
def test_ascii_text_is_cut_as_any_other_text(text: str) -> None:
    for signs in (False, True):
        assert units(f"{text} é", signs=signs) == [*units(text, signs=signs), "é"]
    assert words(f"{text} é") == [*words(text), "é"]


@pytest.mark.parametrize("text", ["two  words (and more)", "银行卡，丢失 now", "บัตรที่หาย", ""])
def test_pieces_cover_all_but_spaces_and_cut_between_words_or_characters(text: str) -> None:
    found = pieces(text)
    assert "".join(text[a:b] for a, b in found) == "".join(text.split())
    assert [u for a, b in found for u in units(text[a:b])] == units(text)


def test_texts_that_look_the_same_have_the_same_words() -> None:
    assert units("wo\u200brd so\u00adft \uff26\uff55\uff4c\uff4c \ufb01t cafe\u0301") == [
        "word",
        "soft",
        "full",
        "fit",
        "caf\u00e9",
    ]
    assert words("\u1112\u1161\u11ab\u1100\u1173\u11af") == words("\ud55c\uae00")  # Korean as macOS writes it
    assert units("Foo\u2122 bar") == ["foo", "bar"]


def test_lines_stay_in_what_is_seen_and_go_in_what_is_visible() -> None:
    assert seen("a\u200b\u00a0\n b") == "a \n b"
    assert visible("a\u200b\u00a0\n b") == "a b"
    assert normal_form("\u00a0\uff21\u200bB ") == "ab"

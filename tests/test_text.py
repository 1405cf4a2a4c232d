from __future__ import annotations

import pytest

from rung.text import pieces, units, words


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

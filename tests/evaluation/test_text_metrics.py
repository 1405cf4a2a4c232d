"""Metrics of text, against published values and other implementations."""

from __future__ import annotations

import random

import pytest

from rung.evaluation.text_metrics import (
    _lcs_length,
    exact_match,
    exact_match_with_space,
    label_accuracy,
    rouge_l,
    token_f1,
)


def test_exact_match_ignores_space_and_encoding_and_nothing_else() -> None:
    assert exact_match("  cafe\u0301\n au  lait ", ["café au lait"]) == 1.0
    assert exact_match("Paris", ["paris"]) == 0.0
    assert exact_match("Paris.", ["Paris"]) == 0.0
    assert exact_match("b", ["a", "b"]) == 1.0
    assert exact_match("ＡＢ\u200bC\u00ad", ["ABC"]) == 1.0


def test_exact_match_with_space_keeps_indentation_and_lines() -> None:
    code = "    if x:\n        return 1"
    assert (
        exact_match_with_space(code, [code])
        == exact_match_with_space("    if x:  \r\n        return 1 \n\n", [code])
        == 1.0
    )
    for other in (
        "if x:\n        return 1",
        "    if x:\n    return 1",
        "    if x: return 1",
        "    if  x:\n        return 1",
    ):
        assert exact_match_with_space(other, [code]) == 0.0
    assert exact_match_with_space("cafe\u0301\u200b", ["café"]) == 1.0
    assert exact_match_with_space("", [" \n"]) == 1.0


@pytest.mark.parametrize(
    "prediction",
    ["card_arrival", ' "Card_Arrival".\n', "'card_arrival.'", "`CARD_ARRIVAL`", "“card_arrival”", "「card_arrival」。"],
)
def test_a_label_is_right_whatever_its_case_quotes_and_full_stop(prediction: str) -> None:
    assert label_accuracy(prediction, ["card_arrival"]) == 1.0


def test_a_label_keeps_the_signs_that_tell_it_from_others() -> None:
    assert label_accuracy("refund?", ["refund"]) == 0.0
    assert label_accuracy('"reverted_card_payment?".', ["reverted_card_payment?"]) == 1.0
    assert label_accuracy(".", ["''"]) == 0.0
    assert label_accuracy(".", ["."]) == 1.0
    assert label_accuracy("the label is spam", ["spam"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("The Denver Broncos!", "Denver Broncos", 1.0),  # articles, case and punctuation do not count
        ("Denver", "Denver Broncos", 2 / 3),  # precision 1, recall 1/2
        ("the the cat", "cat cat dog", 1 / 2),  # one common token, lengths 1 and 3
        ("Carolina Panthers", "Denver Broncos", 0.0),
        ("golden-anniversary", "golden anniversary", 0.0),  # the official code joins what a hyphen parts
        ("A", "a", 1.0),  # nothing is left of either: the whole texts are compared
        ("A", "the", 0.0),
        ("", "Denver", 0.0),
    ],
)
def test_token_f1_follows_the_official_squad_normalisation(prediction: str, reference: str, f1: float) -> None:
    assert token_f1(prediction, [reference]) == pytest.approx(f1)
    assert token_f1(prediction, ["quite other", reference]) == pytest.approx(f1)


def test_rouge_l_equals_googles_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    random_ = random.Random(1)
    words = ["the", "cat's", "sat_on", "Mat,", "a-b", "7", "running", "!", "A"]
    for _ in range(200):
        a, b = (" ".join(random_.choices(words, k=random_.randint(0, 9))) for _ in "ab")
        if not any(c.isalnum() for c in a + b):  # without a token on either side, the whole texts are compared
            continue
        assert rouge_l(a, [b]) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure)


def test_rouge_l_of_lins_published_example() -> None:
    reference = "police killed the gunman"  # Lin (2004), section 3: S2 and S3 against S1
    assert rouge_l("police kill the gunman", [reference]) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", [reference]) == pytest.approx(1 / 2)


def test_rouge_l_reads_letters_of_every_script() -> None:
    assert rouge_l("Москва столица", ["Москва большая"]) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("请您在七天之内到服务台办理", "请您在七天之内到前台办理", 22 / 25),  # 11 common of 13 and 12 characters
        ("กากาก", "กากก", 8 / 9),
        ("北京。", "北京", 1.0),
        ("「返品」は七日", "返品は七日", 1.0),
        ("上海", "北京", 0.0),
        ("iPhone 15手机", "iphone 15 手机", 1.0),
    ],
)
def test_scripts_without_spaces_are_compared_character_by_character(prediction: str, reference: str, f1: float) -> None:
    assert token_f1(prediction, [reference]) == pytest.approx(f1)
    assert rouge_l(prediction, [reference]) == pytest.approx(f1)


def test_an_empty_prediction_is_right_where_nothing_is_expected_and_nowhere_else() -> None:
    for metric in (exact_match, exact_match_with_space, label_accuracy, token_f1, rouge_l):
        assert metric("", [""]) == metric(" \n", [""]) == 1.0
        assert metric("", ["x"]) == metric("x", [""]) == metric("", []) == 0.0


def test_punctuation_of_every_script_is_no_token() -> None:
    assert token_f1("«Où ?» – là…", ["Où là"]) == 1.0


def test_the_longest_common_subsequence_equals_the_textbook_recursion() -> None:
    def textbook(a: list[str], b: list[str]) -> int:
        row = [0] * (len(b) + 1)
        for x in a:
            last = row[:]
            for j, y in enumerate(b):
                row[j + 1] = last[j] + 1 if x == y else max(last[j + 1], row[j])
        return row[-1]

    random_ = random.Random(2)
    for _ in range(200):
        a, b = (random_.choices("abcd", k=random_.randint(0, 80)) for _ in "ab")
        assert _lcs_length(a, b) == textbook(a, b)

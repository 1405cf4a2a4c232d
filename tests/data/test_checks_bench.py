"""The bench of checks plants what it says: valid identifiers, broken JSON, disguised copies; and it counts rightly."""

from __future__ import annotations

import json
import random

import pytest
from phonenumbers import is_valid_number, parse
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.es import dni

import checks
import planting
from made_rows import made

SOURCE = random.Random(0)


@pytest.mark.parametrize("fault", planting.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_plants_as_many_rows_as_it_says_and_leaves_the_others(fault: planting.Fault) -> None:
    _, rows = made("intents")
    if fault.form == "json":
        rows = [{**row, "output": json.dumps({"answer": row["output"], "words": 3})} for row in rows]
    planted = fault.plant(rows, random.Random(1), 24)
    assert len(planted.variants) == 24
    if fault.name == "broken_json":
        for row in planted.rows:
            broken = row["id"] in planted.variants
            try:
                json.loads(row["output"])
            except ValueError:
                assert broken
            else:
                assert not broken
    if fault.name == "leakage":
        assert planted.test is not None and not {r["id"] for r in planted.test} & {r["id"] for r in planted.rows}


def test_identifiers_carry_valid_check_digits() -> None:
    for _ in range(20):
        made_of = {name: make(SOURCE) for name, (_, make) in planting.VALUES.items()}
        assert luhn.is_valid(made_of["card"].replace(" ", "")) and luhn.is_valid(made_of["card, plain"])
        assert iban.is_valid(made_of["IBAN, plain"], check_country=False)
        assert cpf.is_valid(made_of["CPF"].removeprefix("CPF ")) and dni.is_valid(made_of["DNI"].removeprefix("DNI "))
        assert all(
            is_valid_number(parse(value)) for name, value in made_of.items() if name in ("phone, GB", "phone, DE")
        )


def test_disguises_change_the_text_and_most_keep_its_words() -> None:
    text = "Could somebody find my official umbrella, please?"
    for name, change in planting.DISGUISES.items():
        other = change(text, random.Random(2))
        assert (other == text) == (name == "exact"), name
        if name not in ("typo", "re and fwd", "signature"):
            assert checks.same_words(other) == checks.same_words(text), name


def test_recall_and_precision_count_rows_and_findings() -> None:
    fault = next(f for f in planting.FAULTS if f.name == "poison")
    rows = [{"id": f"r{i}", "input": f"text {i}", "output": "x"} for i in range(4)]
    planted = planting.Planted(rows, {"r0": "ignore", "r1": "ignore"})
    tally = checks.Tally()
    found = [("hidden_instruction", ("r0",)), ("hidden_instruction", ("r3",)), ("rare_label", ("r1",))]
    checks.score(tally, fault, planted, found, "made")
    assert tally.record == {"recall": 0.5, "precision": 0.5, "n": 2, "findings": 2}


def test_a_pair_of_the_same_words_counts_as_right_although_it_was_not_planted() -> None:
    fault = next(f for f in planting.FAULTS if f.name == "duplicates")
    texts = ["red fox", "FOX, red!", "blue whale"]
    rows = [{"id": f"r{i}", "input": text, "output": "x"} for i, text in enumerate(texts)]
    tally = checks.Tally()
    found = [("near_duplicate", ("r0", "r1")), ("near_duplicate", ("r0", "r2"))]
    checks.score(tally, fault, planting.Planted(rows, {}), found, "made")
    assert (tally.right, tally.named) == (1, 2)


def test_made_rows_have_no_near_duplicates() -> None:
    _, rows = made("replies")
    words = [set(row["input"].casefold().split()) for row in rows]
    assert all(len(a & b) < 0.6 * len(a | b) for i, a in enumerate(words) for b in words[:i])


def test_a_share_that_differs_between_data_sets_is_left_out() -> None:
    near = {("a", "x"): [8, 10], ("b", "x"): [9, 10], ("c", "x"): [0, 2]}
    assert checks.alike(near, ("x",)) and not checks.alike({**near, ("d", "x"): [1, 10]}, ("x",))
    assert checks.alike({**near, ("d", "y"): [1, 10]}, ("x",))

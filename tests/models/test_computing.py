from __future__ import annotations

from pathlib import Path

import pytest

from rung.models.check import check_model
from rung.models.computing import computed_with, computing_in_words
from rung.testing import tiny_model


def test_one_process_on_a_cpu_in_the_plain_way_says_nothing() -> None:
    model = tiny_model()
    assert computed_with(model.engine, 1) == [] and model.facts() == {}


def test_what_computed_is_kept_with_the_reason_of_what_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,static")
    model = tiny_model()
    model.engine.ways.give_up("fused", "it differs")
    model.engine.ways.give_up("static", "no kernel for it", of="training")
    model.engine.ways.give_up("together", "no port is free")
    model.trained_on = 2
    (record,) = model.facts()["computed"]
    assert (record["device"], record["ways"], record["cards"]) == ("cpu", ["static"], 2)
    assert computing_in_words({**record, "device_name": "x"}) == (
        "on x, 2 processes; ways: static; given up: fused (it differs), static training (no kernel for it), one "
        "training on several cards (no port is free)"
    )


def test_a_record_of_which_parts_are_missing_is_still_told() -> None:
    assert computing_in_words({}) == "on unknown; ways: plain"
    assert computing_in_words({"device": "cuda", "cards": 2}) == "on cuda, 2 cards; ways: plain"


@pytest.mark.parametrize(("ways", "told"), [("", None), ("plain", "plain"), ("fused,static", "fused, static")])
def test_the_check_of_a_model_says_in_which_ways_it_is_computed(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, ways: str, told: str | None
) -> None:
    monkeypatch.setenv("RUNG_WAYS", ways)
    monkeypatch.setenv("RUNG_CARDS", "3")
    facts = dict(check_model(str(tiny_folder)).facts)
    assert facts.get("ways") == told
    assert facts["cards"].startswith("RUNG_CARDS asks for 3 cards")

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from rung.engine.variables import CARDS, WAYS, AskedCards, asked_cards, asked_ways, check_variables
from rung.errors import ModelError


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(WAYS, value)
    monkeypatch.setenv(CARDS, value)
    assert asked_ways() is None and asked_cards() is None


def test_capitals_and_blanks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAYS, " Fused, STATIC ")
    monkeypatch.setenv(CARDS, " CPU:2 ")
    assert (asked_ways(), asked_cards()) == ({"fused", "static"}, AskedCards(2, on_cpu=True))
    monkeypatch.setenv(WAYS, "Plain")
    monkeypatch.setenv(CARDS, "4")
    assert (asked_ways(), asked_cards()) == (frozenset(), AskedCards(4, on_cpu=False))


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        (WAYS, "fused,fast", "'fast' is no way to compute"),
        (WAYS, "plain,fused", "'plain,fused' names plain beside another way"),
        (WAYS, ",", "',' names no way to compute"),
        (CARDS, "nonsense", "'nonsense' is no number of cards"),
        (CARDS, "1,2", "'1,2' is no number of cards"),
        (CARDS, "cuda:1", "'cuda:1' is no number of cards"),
        (CARDS, "0", "'0' is no number of cards"),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error_that_names_those_that_are(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(variable, value)
    allowed = ["fused, static, compiled", "plain"] if variable == WAYS else ["CUDA_VISIBLE_DEVICES", "cpu:N"]
    with pytest.raises(ModelError, match=f"^environment variable {variable}: {re.escape(fault)}. Allowed are") as told:
        check_variables()
    assert all(word in str(told.value) for word in allowed) and str(told.value).endswith("or unset the variable.")


def test_they_are_read_without_torch() -> None:
    code = "import sys, rung.engine.variables; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The choice of the next token."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rung.engine import batch, gpu_kernels
from rung.engine.batch import choose


def drawn(
    logits: list[list[float]], temperature: float, top_p: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[int]:
    rows = torch.tensor(logits, dtype=dtype)
    generators = [torch.Generator().manual_seed(i) for i in range(len(rows))]
    return choose(rows, [temperature] * len(rows), generators, [None] * len(rows), [top_p] * len(rows))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_coldest_temperatures_take_the_likeliest_token(temperature: float, dtype: torch.dtype) -> None:
    assert drawn([[1.0, 40.0, 2.0], [-3.0, -40.0, -2.0]], temperature, dtype=dtype) == [1, 2]


def test_a_row_without_numbers_does_not_end_the_others() -> None:
    nan = float("nan")
    assert drawn([[nan, nan, nan], [0.0, 50.0, 0.0]], 1.0)[1] == 1


def test_the_smallest_share_is_the_likeliest_token() -> None:
    assert drawn([[1.0, 1.5, 1.2]] * 20, 1.0, top_p=5e-324) == [1] * 20


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    found = drawn([[0.0, 1.0, float("-inf")]] * 4000, 1.0)
    assert abs(found.count(1) / 4000 - 0.7311) < 0.03 and 2 not in found  # 1 / (1 + exp(-1))


def test_rows_of_logits_that_are_asked_choose_as_if_they_stood_alone() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    rows = [3, 0, 4]

    def drawing() -> list[torch.Generator | None]:
        return [torch.Generator().manual_seed(1), None, torch.Generator().manual_seed(2)]

    given = ([0.9, 0.0, 0.4], drawing(), [None] * 3, [1.0, 1.0, 0.7])
    alone = choose(logits[rows], *given)
    given = (given[0], drawing(), *given[2:])
    assert choose(logits, *given, rows=rows, likeliest=logits.argmax(-1)) == alone


# ---- drawn where the scores are, on a GPU ----------------------------------------------------------


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "is_gpu", lambda x: True)


@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_draws_tokens_as_often_as_they_are_likely() -> None:
    rows = [[0.0, 1.0, float("-inf"), -1.0]] * 4000
    shares = torch.softmax(torch.tensor(rows[0]), -1).tolist()
    found = drawn(rows, 1.0)
    assert all(abs(found.count(token) / 4000 - share) < 0.03 for token, share in enumerate(shares))
    assert 2 not in found
    cut = drawn(rows, 1.0, top_p=0.8)  # the two likeliest hold 0.91 of the chance
    assert set(cut) == {0, 1} and abs(cut.count(1) / 4000 - 0.7311) < 0.03


@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_draws_for_a_row_what_it_draws_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 30, generator=torch.Generator().manual_seed(0))
    top_ps = [1.0, 0.5, 1.0, 0.9, 1.0, 1.0, 0.2]

    def of(rows: list[int]) -> list[int]:
        draws: list[torch.Generator | None] = [torch.Generator().manual_seed(row) if row else None for row in rows]
        n = len(rows)
        return choose(logits, [0.8] * n, draws, [None] * n, [top_ps[row] for row in rows], rows=rows)

    together = of(list(range(7)))
    assert together == [*(of([row])[0] for row in range(7))]
    assert together[0] == int(logits[0].argmax()), "a row that is not sampled"
    monkeypatch.setattr(batch, "_MOST_DRAWN", 60)  # in parts of two rows
    assert of(list(range(7))) == together


@pytest.mark.usefixtures("on_gpu")
def test_a_gpu_draws_what_a_grammar_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Even:
        def allowed(self) -> npt.NDArray[np.bool_]:
            return np.arange(12) % 2 == 0

    logits = torch.zeros(6, 12)
    logits[:, 1] = 30.0
    matchers: list[Any] = [Even() if row % 2 else None for row in range(6)]
    found = {
        tuple(
            choose(logits, [1.0] * 6, [torch.Generator().manual_seed(6 * k + i) for i in range(6)], matchers, [1.0] * 6)
        )
        for k in range(40)
    }
    assert all(tokens[row] == 1 for tokens in found for row in (0, 2, 4))
    assert {tokens[row] for tokens in found for row in (1, 3, 5)} == {0, 2, 4, 6, 8, 10}


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("temperature", [5e-324, 1e-7])
def test_a_gpu_takes_the_likeliest_token_where_it_is_cold_or_has_no_numbers(temperature: float) -> None:
    nan = float("nan")
    assert drawn([[1.0, 40.0, 2.0], [-3.0, -40.0, -2.0]], temperature) == [1, 2]
    assert drawn([[0.0, nan, 0.0], [0.0, 50.0, 0.0]], 1.0) == [1, 1]
    assert drawn([[1.0, 1.5, 1.2]] * 20, 1.0, top_p=5e-324) == [1] * 20


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-24])
def test_the_first_and_the_last_number_draw_tokens_that_may_come(draw: float) -> None:
    low = float("-inf")
    logits = torch.tensor([[low, 1.0, 2.0, low], [low, low, 3.0, low]])
    ones = torch.ones(2)
    for cut in (False, True):
        found = batch.drawn(logits, ones, ones * 0.999, torch.full((2,), draw), cut=cut).tolist()
        assert found[0] in (1, 2) and found[1] == 2


def test_sums_that_rise_by_rounding_draw_no_token_that_may_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    low = float("-inf")
    logits = torch.tensor([[0.0, low, 0.0, low]])
    sums = torch.tensor([[0.5, 0.5 + 1e-4, 0.999, 1.0]])  # of weights 0.5, 0, 0.5 and 0, as a GPU may sum them
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda *_: sums)
    for draw, token in ((0.5, 0), (0.5006, 2), (1 - 2**-24, 2)):
        ones = torch.ones(1)
        assert batch.drawn(logits, ones, ones, torch.tensor([draw]), cut=False).tolist() == [token]

"""The choice of the next token."""

from __future__ import annotations

import pytest
import torch

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

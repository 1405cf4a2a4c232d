from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from rung.models.endpoint.garbage import rare_collections


@pytest.fixture(autouse=True)
def threshold() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield before
    gc.set_threshold(*before)


def test_the_threshold_is_as_before_when_the_last_block_ends() -> None:
    with rare_collections():
        with pytest.raises(ValueError, match="x"), rare_collections():
            raise ValueError("x")
        assert gc.get_threshold() == (20_000, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [0, 50_000])
def test_a_threshold_that_collects_less_often_stays(own: int) -> None:
    gc.set_threshold(own, 10, 10)
    with rare_collections():
        assert gc.get_threshold()[0] == own
    assert gc.get_threshold()[0] == own


def test_a_threshold_that_was_set_meanwhile_stays() -> None:
    with rare_collections():
        gc.set_threshold(1000, 5, 5)
    assert gc.get_threshold() == (1000, 5, 5)

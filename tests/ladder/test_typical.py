from __future__ import annotations

import pytest

from rung.ladder.plan import typical_seconds
from rung.types import Speed


def test_a_typical_run_takes_as_many_times_longer_as_the_model_is_slower() -> None:
    embedded = Speed(1010, 169, 331)  # on two cores
    seconds = typical_seconds(embedded)
    assert 5 * 60 < seconds < 15 * 60
    assert typical_seconds(Speed(101, 16.9, 33.1)) == pytest.approx(10 * seconds, rel=1e-3)

"""What is done when a service opens, so that no request waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.errors import ModelError
from rung.models.one_by_one import OneByOne
from rung.serving.opening import open_service
from rung.testing import FakeModel


@pytest.mark.parametrize("hot", [True, False])
def test_adapters_are_checked_at_the_start_where_they_may_be_loaded_later(tmp_path: Path, hot: bool) -> None:
    checked: list[str] = []

    class Checked(OneByOne):
        def check_adapters(self) -> None:
            checked.append(self.model.name)
            raise ModelError("no adapter can be computed")

    service = open_service(
        [], bases=["x"], adapters=tmp_path if hot else None, open_base=lambda spec, name: Checked(FakeModel({}))
    )
    assert checked == (["fake"] if hot else []) and [served.name for served in service.models()] == ["x"]

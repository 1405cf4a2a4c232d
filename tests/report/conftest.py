from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names of runs are those of no run: after `make demo` there are some where the tests start."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))

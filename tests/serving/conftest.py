from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live_server import Live, live_server


@pytest.fixture(scope="session")
def live(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that all tests of a process share."""
    with live_server(tmp_path_factory.mktemp("served"), tiny_folder) as server:
        yield server

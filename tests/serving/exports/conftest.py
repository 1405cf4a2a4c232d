from __future__ import annotations

from pathlib import Path

import pytest

from export_cases import make_adapter, make_bundle
from rung.serving.exports.export import ExportSource


@pytest.fixture(scope="session")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def bundle(tiny_folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tiny_folder, tmp_path_factory.mktemp("bundle"), adapter)


@pytest.fixture(scope="session")
def source(bundle: Path) -> ExportSource:
    from rung.serving.exports.source import read_source

    return read_source(bundle)

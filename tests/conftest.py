from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bundle_runs import echo as echo
from rung.cache import cache_folder
from rung.errors import ModelError
from rung.testing import save_tiny_model, tiny_model

_LONG_FILES = ("test_simulation.py", "test_statistics.py")
_SHARED = ("models", "hashes", "bases", "checks", "dtype", "speed", "npm")
"""Of the user's cache, what tests share: all that depends on files and the machine alone."""


@pytest.fixture(scope="module", autouse=True)
def _only_new_objects_are_looked_at_for_garbage() -> None:
    """The compiler of PyTorch alone leaves millions of objects that stay; each collection would walk over them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The embedded model's folder. Where it cannot be fetched the test is skipped, but fails in CI."""
    from rung.models.catalogue import DEFAULT_MODEL, ensure_model

    try:
        return ensure_model(DEFAULT_MODEL)
    except ModelError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded model cannot be fetched: {error}")


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A tiny random model of the module's own, so that adapters of one module are unknown to the others."""
    return tiny_model()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a Hugging Face folder."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def plain_network(tiny_folder: Path) -> Any:
    """The same weights as ordinary transformers runs them: its own attention, no shared prefixes."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager").eval()


def pytest_configure() -> None:
    """A shell that starts tests in the background has them ignore Ctrl-C, and what they start would, too.

    A fake endpoint may get the port of an earlier one, whose kept answers are then taken for its own: each process of
    tests keeps what it asks of endpoints in a folder of its own.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    shared, own = cache_folder(), Path(tempfile.mkdtemp(prefix="rung-tests-"))
    for name in _SHARED:
        (shared / name).mkdir(parents=True, exist_ok=True)
        (own / name).symlink_to(shared / name)
    os.environ["RUNG_CACHE"] = str(own)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["RUNG_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs and simulations come first: they take minutes a file, and no process should end on them alone."""
    items.sort(key=lambda item: item.path.parent.name != "ladder" and item.path.name not in _LONG_FILES)

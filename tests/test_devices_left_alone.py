"""Nothing that rung imports takes a GPU that another program may be using: no JAX, no TensorFlow, no CUDA context."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FRAMEWORKS = ("jax", "jaxlib", "flax", "tensorflow", "cupy")

STAND_IN = '''
"""Writes down who imports it and what is asked of it; being asked for anything may start a device."""
import os, sys, traceback

def _note(what):
    users = [f.name + " in " + f.filename for f in traceback.extract_stack() if "importlib" not in f.filename]
    with open(os.environ["RUNG_TEST_LOG"], "a") as log:
        log.write(what + " by " + " < ".join(reversed(users[:-2])) + "\\n")

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    _note("used: " + __name__ + "." + name)
    return lambda *args, **kwargs: ([0], [0])

__version__ = "99.0"
_note("imported: " + __name__)
'''

WATCH_CUDA = """
import torch

def refuse():
    raise AssertionError("a CUDA context is created")

torch.cuda._lazy_init = refuse
torch.cuda.is_available = lambda: True  # as on a machine with a GPU
torch.cuda.device_count = lambda: 1
"""

SEARCH = """
from rung.retrieval.bm25 import BM25
from rung.types import Document, Query

index = BM25([Document("a", "a lost card is free"), Document("b", "transfers take a day")])
assert [d.id for d in index.search([Query("1", "lost card")], 1)[0]] == ["a"]
"""

EVERYTHING = """
import importlib, pkgutil, warnings
import rung

warnings.simplefilter("ignore")
for module in pkgutil.walk_packages(rung.__path__, "rung."):
    if not module.name.endswith(("__main__", ".plain.dspy_program")):  # the latter is copied out, for who has DSPy
        importlib.import_module(module.name)
for name in (
    "accelerate", "gguf", "huggingface_hub", "llguidance", "llguidance.torch", "llguidance.hf", "peft", "pydantic",
    "safetensors.torch", "scipy.stats", "sklearn.feature_extraction.text", "sklearn.preprocessing", "sklearn.svm",
    "statsmodels.api", "statsmodels.stats.multitest", "transformers", "transformers.generation",
    "transformers.modeling_utils", "transformers.models.auto", "transformers.models.llama.modeling_llama",
    "transformers.models.mamba.modeling_mamba",
):
    importlib.import_module(name)
"""

TINY = """
import tempfile
from pathlib import Path
from rung.testing import tiny_model
from rung.types import Decoding, Message, Request, TrainingOptions, TrainingRow

model = tiny_model()
asked = (Message("user", "a card"),)
with tempfile.TemporaryDirectory() as folder:
    options = TrainingOptions(1e-3, steps=1, batch_size=1, rank=2)
    adapter = model.train([TrainingRow("1", asked, "the answer")], options, Path(folder))
    model.generate([Request(asked, Decoding(2), adapter=str(adapter))])
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Stand-ins of the frameworks, installed as far as their metadata say; what they note stands in this file."""
    for name in FRAMEWORKS:
        (tmp_path / name).mkdir()
        for module in ("__init__", "lax", "numpy", "core", "config"):
            (tmp_path / name / f"{module}.py").write_text(STAND_IN, "utf-8")
        about = tmp_path / f"{name}-99.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n", "utf-8")
    return tmp_path / "log.txt"


def notes(log: Path, *parts: str) -> list[str]:
    """What the stand-ins noted while the parts ran in a process of their own."""
    environment = os.environ | {"PYTHONPATH": str(log.parent), "RUNG_TEST_LOG": str(log), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(parts)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return log.read_text("utf-8").splitlines() if log.exists() else []


def test_the_stand_in_notes_what_bm25s_does_by_itself(log: Path) -> None:
    assert any(note.startswith("used: jax.lax.top_k") for note in notes(log, "import bm25s"))


def test_an_index_over_passages_never_touches_jax(log: Path) -> None:
    assert notes(log, SEARCH) == []


def test_an_index_never_starts_a_jax_that_the_program_has_imported(log: Path) -> None:
    found = notes(log, "import jax.lax", SEARCH, "import jax.lax", "assert jax.lax.top_k")
    assert [note.split(" by ")[0] for note in found] == ["imported: jax", "imported: jax.lax", "used: jax.lax.top_k"]


def test_another_thread_may_import_jax_while_an_index_is_built(log: Path) -> None:
    program = """
import builtins, threading
from rung.retrieval.bm25 import _no_jax

real, failed = builtins.__import__, []

def elsewhere():
    try:
        import jax
    except ImportError as error:
        failed.append(error)

with _no_jax():
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    try:
        import jax
    except ImportError:
        pass
    else:
        raise AssertionError("imported")
import jax
assert not failed and builtins.__import__ is real
"""
    assert [note.split(" by ")[0] for note in notes(log, program)] == ["imported: jax"]


def test_importing_all_of_rung_and_what_it_needs_starts_no_device(log: Path) -> None:
    found = notes(log, WATCH_CUDA, EVERYTHING, SEARCH, TINY)
    assert [note for note in found if note.startswith("used")] == []

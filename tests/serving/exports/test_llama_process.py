"""The process of llama.cpp, with a module in the place of llama-cpp-python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rung.errors import ExportError
from rung.serving.exports.llama_runtime import LlamaProcess

STUB = """
import sys
__version__ = "0"
class Llama:
    def __init__(self, *given, **more):
        print("loading " * 40_000, file=sys.stderr)
        if given[0] == "ends":
            sys.exit("no room")
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaProcess:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(STUB)
    (tmp_path / "llama_cpp" / "llama_chat_format.py").write_text("import gguf\nJinja2ChatFormatter = gguf.__file__\n")
    (tmp_path / "gguf.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return LlamaProcess(Path(sys.executable))


def test_a_library_that_says_much_does_not_stop_and_finds_its_own_packages(process: LlamaProcess) -> None:
    assert process.ask("open", model="m", lora=None, context=8) == {"version": "0"}
    assert process.close().endswith("loading")
    assert process.close() == ""


def test_a_process_that_ends_is_told_with_the_last_it_said(process: LlamaProcess) -> None:
    with pytest.raises(ExportError, match="no room"):
        process.ask("open", model="ends", lora=None, context=8)

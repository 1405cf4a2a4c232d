"""Exports: a bundle as files of other tools, each with a parity test in that tool's own runtime."""

from __future__ import annotations

import difflib
from importlib import import_module

from rung.errors import ExportError
from rung.serving.exports.export import Export

EXPORTS: dict[str, str] = {
    "peft": "rung.serving.exports.peft:PEFT",
    "merged": "rung.serving.exports.merged:MERGED",
    "gguf": "rung.serving.exports.gguf:GGUF",
    "ollama": "rung.serving.exports.ollama:OLLAMA",
    "vllm": "rung.serving.exports.vllm:VLLM",
    "python": "rung.serving.exports.python:PYTHON",
    "openai-jsonl": "rung.serving.exports.training_data:OPENAI_JSONL",
    "messages": "rung.serving.exports.training_data:MESSAGES",
    "alpaca": "rung.serving.exports.training_data:ALPACA",
    "sharegpt": "rung.serving.exports.training_data:SHAREGPT",
    "dspy": "rung.serving.exports.dspy:DSPY",
    "promptfoo": "rung.serving.exports.promptfoo:PROMPTFOO",
}
"""Name -> "module:attribute" of an Export; one module an export, imported when it is chosen."""


def register_export(name: str, place: str) -> None:
    """Makes an export known by its name. place: "module:attribute". Raises ExportError where the name is taken."""
    if EXPORTS.get(name, place) != place:
        raise ExportError(f'export: the name "{name}" is taken. Register it under another name.')
    EXPORTS[name] = place


def export_named(name: str) -> Export:
    """The export of that name. Raises ExportError where there is none."""
    if name not in EXPORTS:
        near = difflib.get_close_matches(name, EXPORTS, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise ExportError(f"there is no export {name!r}. {meant}There are {', '.join(EXPORTS)}.")
    module, _, attribute = EXPORTS[name].partition(":")
    found: Export = getattr(import_module(module), attribute)
    return found

"""Tokens of texts as a local model counts them, from its files alone: no network, no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rung.models.catalogue import find_model
from rung.models.context_length import context_length


def counter_of(name: str) -> tuple[Callable[[str], int], int] | None:
    """(text -> number of tokens, tokens that fit the context); None for a model that is not on this machine, or whose
    tokenizer is not in one JSON file.

    name: as for `catalogue.find_model`.
    """
    from tokenizers import Tokenizer

    folder = find_model(name)
    if folder is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = _read(folder / "config.json")
        own = _read(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    except Exception:  # tokenizers raises Exception itself; whoever loads the model says what is wrong with its files
        return None
    text_config = config.get("text_config") or config
    limit = own.get("model_max_length")
    named = SimpleNamespace(model_max_length=limit if isinstance(limit, int | float) else None)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count, context_length(SimpleNamespace(**text_config), named)


def _read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record

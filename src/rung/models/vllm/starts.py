"""How long vLLM takes to start with a model here: the newest start is kept, so that a plan can count the next one."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from rung.cache import cache_folder
from rung.errors import DamagedRecord
from rung.records import read_json, write_json

UNKNOWN_START_S = 60.0
"""Assumed where no start is kept."""


def keep_start(key: str, seconds: float) -> None:
    """key: of what vLLM answers with (`answers_key`). seconds: that this start took."""
    with contextlib.suppress(OSError):  # a cache that cannot be written spoils no run
        write_json(_file(key), {"seconds": round(seconds, 1)})


def start_seconds(key: str) -> float:
    """Seconds of the newest start, else UNKNOWN_START_S."""
    try:
        seconds = float((read_json(_file(key)) or {})["seconds"])
    except (OSError, DamagedRecord, ValueError, LookupError, TypeError):
        return UNKNOWN_START_S
    return seconds if math.isfinite(seconds) and seconds >= 0 else UNKNOWN_START_S


def _file(key: str) -> Path:
    return cache_folder() / "vllm" / f"{key}-start.json"

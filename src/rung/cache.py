"""The cache folder that all runs share. Its files are written whole, under a scratch name until they are complete."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$RUNG_CACHE, or `rung` in the user's cache folder."""
    if chosen := os.environ.get("RUNG_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rung"

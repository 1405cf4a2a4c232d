"""Where local models lie on this machine, by their version: a bundle names its base by content and not by a path.

A place is remembered when the model is loaded. Whoever reads it back checks the version of what lies there now.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from rung.cache import cache_folder
from rung.models.four_bit import SUFFIX, split_spec
from rung.records import write_json

VARIABLE = "RUNG_BASE"
"""Environment variable that names folders or files of models, as PATH does programs."""


def remember(version: str, spec: str) -> None:
    """Notes that the model of this version is what `spec` names, where that is a folder or file of this machine."""
    name, four_bit = split_spec(spec)
    path = Path(name).expanduser()
    if not path.exists():
        return
    found = f"{path.resolve()}{SUFFIX if four_bit else ''}"
    with contextlib.suppress(OSError):  # without a cache it is named by hand
        if remembered(version) != found:
            write_json(_record(version), {"model": found}, synced=False)


def remembered(version: str) -> str | None:
    """The spec that this version was loaded by, where something lies there still; what it is now is not checked."""
    try:
        spec = str(json.loads(_record(version).read_text("utf-8"))["model"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return spec if Path(split_spec(spec)[0]).exists() else None


def places_named() -> tuple[str, ...]:
    """What the environment variable RUNG_BASE names."""
    return tuple(place for place in os.environ.get(VARIABLE, "").split(os.pathsep) if place.strip())


def _record(version: str) -> Path:
    return cache_folder() / "bases" / f"{version[:64]}.json"

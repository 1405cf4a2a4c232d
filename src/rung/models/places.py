"""Which models were used on this machine: where local ones lie, by their version, and which endpoints were asked.

A bundle names its base by content and not by a path. A place is remembered when the model is loaded; whoever reads it
back checks the version of what lies there now. An endpoint is remembered when it was opened: what somebody else's
bundle names gets no key and no input unless it is one of these.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rung.cache import cache_folder
from rung.models.four_bit import SUFFIX, split_spec
from rung.records import write_json

if TYPE_CHECKING:
    from rung.models.endpoint.spec import EndpointSpec

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


def is_endpoint(spec: str) -> bool:
    """Whether a spec names a model behind an endpoint."""
    return spec.lstrip().startswith(("{", "http://", "https://"))


def remember_endpoint(spec: EndpointSpec) -> None:
    """Notes that this address was asked from here, with the key of this environment variable."""
    if endpoint_is_known(spec):
        return
    with contextlib.suppress(OSError):
        write_json(_endpoint(spec), {"endpoint": spec.endpoint, "key_env": spec.key_variable}, synced=False)


def endpoint_is_known(spec: EndpointSpec) -> bool:
    """Whether this address was asked before from this machine with the key of the same variable. A server on this
    machine that gets no key needs no asking."""
    if spec.is_loopback and spec.key_variable is None:
        return True
    try:
        said = json.loads(_endpoint(spec).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said == {"endpoint": spec.endpoint, "key_env": spec.key_variable})


def _endpoint(spec: EndpointSpec) -> Path:
    said = json.dumps([spec.endpoint, spec.key_variable])
    return cache_folder() / "endpoints" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"


def _record(version: str) -> Path:
    return cache_folder() / "bases" / f"{version[:64]}.json"

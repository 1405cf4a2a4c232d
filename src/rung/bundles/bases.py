"""The base of a bundle: named without a path, and found again on another machine by its content.

A catalogue name, an id of the hub and an endpoint mean the same everywhere. A folder or a file is named by its last
name and its version; where it lies is said by hand, by RUNG_BASE, or known from the last time that it was loaded here.
An endpoint gets inputs, and a key from the environment, only where the user names it or has used it here before.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RunError, RungError
from rung.models.four_bit import SUFFIX, split_spec
from rung.models.places import VARIABLE, endpoint_is_known, is_endpoint, places_named, remember, remembered

_IN_HUB_CACHE = re.compile(r".*/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class BundledBase:
    """The model that a bundle answers with.

    model: as `open_model` takes it on every machine; of a folder or file only its name. kind: "catalogue", "hub",
    "folder", "file", "endpoint" or "other". version: of its content. hub: id of the same weights on the hub, or of
    those that it was made from; None where none is known. exact: whether these are the same. revision: of the hub.
    """

    model: str
    kind: str
    version: str
    hub: str | None = None
    exact: bool = True
    revision: str | None = None

    @property
    def record(self) -> dict[str, Any]:
        """As bundle.json holds it beside `model` and `model_version`."""
        return {"kind": self.kind, "hub": self.hub, "exact": self.exact, "revision": self.revision}

    @property
    def for_peft(self) -> str:
        """What stands in the adapter: an id where the hub has these very weights, else a name that nobody mistakes."""
        return self.hub if self.hub is not None and self.exact else split_spec(self.model)[0]


def base_of(spec: str, version: str) -> BundledBase:
    """How a bundle names the model that a run names by `spec`. A place on this machine is remembered."""
    from rung.models.catalogue import CATALOGUE, find_model

    name, four_bit = split_spec(spec)
    end = SUFFIX if four_bit else ""
    if is_endpoint(spec):
        return BundledBase(spec, "endpoint", version)
    if name in CATALOGUE:
        return BundledBase(spec, "catalogue", version, CATALOGUE[name].hub, exact=False)
    path = Path(name).expanduser()
    if path.exists() or path.is_absolute():
        remember(version, spec)
        if (cached := _IN_HUB_CACHE.fullmatch(path.resolve().as_posix())) is not None:
            id_ = f"{cached[1]}/{cached[2]}"
            return BundledBase(f"{id_}{end}", "hub", version, id_, revision=cached[3])
        return BundledBase(f"{path.name}{end}", "file" if path.suffix == ".gguf" else "folder", version)
    if _HUB_ID.fullmatch(name):
        folder = find_model(name)
        cached = _IN_HUB_CACHE.fullmatch(folder.as_posix()) if folder is not None else None
        return BundledBase(spec, "hub", version, name, revision=cached[3] if cached is not None else None)
    return BundledBase(spec, "other", version)


def find_base(
    place: Path, note: Mapping[str, Any], file: Path, *, base: str | None = None, bases: Sequence[str] = ()
) -> str:
    """The spec by which `open_model` opens a bundle's base on this machine.

    place: the solution's folder. note: with `model` and `model_version`, of a bundle or a run, and `base` where it is a
    bundle of format 2. file: where that stands. base: what the user names; it must be that model. bases: specs of which
    one may be it. Raises RunError where the base cannot be found, is another one, or is an endpoint that was never used
    on this machine and that the user does not name.
    """
    model, version = str(note["model"]), str(note["model_version"])
    if base is not None:
        return _named(place, model, version, base)
    for candidate in (*bases, *places_named()):
        spec = _as_wanted(candidate, model)
        if spec == model or _version(spec) == version:
            return spec
    if is_endpoint(model):
        return _known_endpoint(place, model, file)
    name = Path(split_spec(model)[0]).expanduser()
    kind = (note.get("base") or {}).get("kind")  # None: of a run, or of an older bundle, which name places
    if (kind not in ("folder", "file")) if kind else (not name.is_absolute() or name.exists()):
        return model
    known = remembered(version)
    if known is not None and _version(known) == version:
        return known
    others = f" What {VARIABLE} names is another model." if places_named() else ""
    gone = "is no longer there" if name.is_absolute() else "is not known on this machine"
    raise RunError(
        f"{place}: its base model {name if name.is_absolute() else model} {gone} (content {version}, named in {file})."
        f"{others} Say where it lies, with --base PATH, base= of rung.load, or the environment variable {VARIABLE}. "
        "Its content is checked."
    )


def find_folder(place: Path, what: str, name: str, version: str | None) -> str:
    """Where a model of a search lies that was a folder. what: "embedder" or "reranker". name: of the folder, or where
    it lay. version: of its content; None where the record does not say it. Raises RunError where it is not found."""
    from rung.models.identity import content_version

    known = remembered(version) if version is not None else None
    for candidate in (*places_named(), *([known] if known is not None else [])):
        path = Path(candidate).expanduser()
        if path.is_dir() and content_version(path) == version:
            return str(path.resolve())
    if version is None:
        raise RunError(
            f"{place}: its {what} {name} is no longer there. Put it back; or, where it lies elsewhere now, write its "
            f'new place as "{what}" into {place / "solution.json"}.'
        )
    raise RunError(
        f"{place}: its {what} {name} is not known on this machine (content {version}). Say where the folder lies with "
        f"the environment variable {VARIABLE}; its content is checked."
    )


def other_base(place: Path, note: Mapping[str, Any], here: str) -> RunError:
    """The error that a base is not the one that a bundle was made with. here: its version."""
    revision = (note.get("base") or {}).get("revision")
    which = f", revision {revision} of the hub" if revision else ""
    again = f"hf download {split_spec(str(note['model']))[0]} --revision {revision}, and name " if revision else "Name "
    return RunError(
        f"{place}: was made with another version of {note['model']} ({note['model_version']}{which}, here {here}), so "
        f"that it would not answer as it did in the test. {again}the right one with --base PATH."
    )


def _named(place: Path, model: str, version: str, base: str) -> str:
    """What the user names, where it is the bundle's base."""
    from rung.models import model_version

    spec = _as_wanted(base, model)
    if (here := model_version(spec)) != version:
        raise RunError(
            f"{place}: {base} is not its base model {model} (content {version}, there {here}). Name the model that the "
            "bundle was made with."
        )
    if not is_endpoint(spec):
        remember(version, spec)
    return spec


def _known_endpoint(place: Path, model: str, file: Path) -> str:
    """The endpoint, where it was used on this machine before. Raises RunError with what would be sent to it."""
    from rung.models.endpoint.spec import parse

    spec = parse(model)
    if endpoint_is_known(spec):
        return model
    sent = f"inputs, and the key in {spec.key_variable}," if spec.key_variable is not None else "inputs"
    raise RunError(
        f"{place}: its model is {spec.where} (named in {file}), which was not used on this machine yet: {sent} would "
        f"be sent to it. If you trust it, name it: --base {shlex.quote(model)}, or base= of rung.load."
    )


def _as_wanted(given: str, model: str) -> str:
    """A place as a spec: in 4 bits where the bundle's base is."""
    return f"{given}{SUFFIX}" if model.endswith(SUFFIX) and not given.endswith(SUFFIX) else given


def _version(spec: str) -> str | None:
    """Of a model that lies on this machine, or that needs nothing fetched; None where it cannot be said."""
    from rung.models import model_version

    with contextlib.suppress(RungError, OSError):
        if is_endpoint(spec) or Path(split_spec(spec)[0]).expanduser().exists():
            return model_version(spec)
    return None

"""Folders to a service: each base is opened once, and bundles stand over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rung.errors import ModelError, RunError
from rung.models.places import is_endpoint
from rung.models.streaming import Answerer
from rung.serving.bundle import Packed, read_bundle
from rung.serving.names import check_name, plain_name
from rung.serving.service import ModelService, ServiceLimits
from rung.types import Model

OpenBase = Callable[[str, str], Answerer]
"""(spec, name) -> who answers with that base: how an engine opens one."""

_CALLS_AT_ONCE = 64  # of an endpoint


@dataclass(frozen=True)
class NamedBundle:
    """What is to be served, and under which name."""

    name: str
    packed: Packed


def named_bundles(given: Sequence[str], bases: Sequence[str] = ()) -> list[NamedBundle]:
    """Folders of bundles or runs, each as PATH or NAME=PATH; without a name it is the task's. bases: where the
    base of a bundle may lie.

    Raises RunError or ServingError.
    """
    found: list[NamedBundle] = []
    for text in given:
        name, _, path = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        packed = read_bundle(Path(path), bases=bases)
        name = name or plain_name(str(packed.note.get("task") or packed.place.resolve().name))
        check_name(name)
        if any(other.name == name for other in found):
            raise RunError(f"{path}: the name {name!r} is taken already. Give it a name of its own, as OTHER={path}.")
        found.append(NamedBundle(name, packed))
    return found


def open_service(
    bundles: Sequence[NamedBundle],
    *,
    bases: Sequence[str] = (),
    adapters: Path | None = None,
    slots: int = 8,
    dtype: str | None = None,
    limits: ServiceLimits | None = None,
    open_base: OpenBase | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ModelService:
    """A service that is ready to answer.

    bases: specs of models that are served without a bundle, too. adapters: the folder of those that may be hot-loaded.
    slots: adapters of one batch. dtype: that local models compute in; None: as in a run. open_base: of another engine
    than the local one. Raises RungError.
    """
    limits = limits or ServiceLimits()
    specs = list(dict.fromkeys([*(b.packed.model for b in bundles), *bases]))
    if not specs:
        raise RunError("there is nothing to serve. Name a bundle or a run folder, or a model with --base.")
    names = _names_of(specs, {b.name for b in bundles})
    opened: dict[str, Answerer] = {}
    try:
        for spec in specs:
            say(f"opening {names[spec]} …")
            opened[names[spec]] = open_base(spec, names[spec]) if open_base else _local(spec, slots, dtype, limits, say)
        service = ModelService(opened, adapters=adapters, limits=limits)
        for bundle in bundles:
            service.add(bundle.name, bundle.packed, names[bundle.packed.model])
        if adapters is not None:
            _check_adapters(opened.values())
    except BaseException:
        for answerer in opened.values():
            answerer.close()
        raise
    return service


def _check_adapters(answerers: Iterable[Answerer]) -> None:
    """Before any is loaded, so that nobody waits for it then. What fails is said of each adapter that is loaded."""
    for answerer in answerers:
        if (check := getattr(answerer, "check_adapters", None)) is not None:
            with suppress(ModelError):
                check()


def answerer_for(model: Model, *, slots: int = 8, most_waiting: int = 256) -> Answerer:
    """Who answers with this model: continuous batches where its engine can, else whole answers."""
    from rung.models.endpoint.endpoint import Endpoint
    from rung.models.one_by_one import OneByOne

    if isinstance(model, Endpoint):
        from rung.serving.engines.endpoint import Proxied

        return Proxied(model, most_waiting=most_waiting)
    from rung.models.local import LocalModel  # imports torch, which an endpoint does not need

    if isinstance(model, LocalModel) and model.engine.path == "tree":
        from rung.models.continuous import Continuous

        return Continuous(model, slots=slots, most_waiting=most_waiting)
    if isinstance(model, LocalModel):
        return OneByOne(model, together=64, most_waiting=most_waiting)
    return OneByOne(model, at_once=_CALLS_AT_ONCE, most_waiting=most_waiting)


def _local(spec: str, slots: int, dtype: str | None, limits: ServiceLimits, say: Callable[[str], None]) -> Answerer:
    from rung.models import is_local, open_model

    if dtype is not None and is_local(spec):
        import torch

        from rung.models.loading import load_model

        model: Model = load_model(spec, dtype=getattr(torch, dtype), say=say)
    else:
        model = open_model(spec, say=say)
    return answerer_for(model, slots=slots, most_waiting=limits.most_waiting)


def _names_of(specs: Sequence[str], taken: set[str]) -> dict[str, str]:
    """What bases are called: never a path or an address, and no bundle's name."""
    names: dict[str, str] = {}
    for spec in specs:
        name = own = _short(spec)
        number = 2
        while name in taken or name in names.values():
            name, number = f"{own}-{number}", number + 1
        names[spec] = name
    return names


def _short(spec: str) -> str:
    if is_endpoint(spec):
        from rung.models.endpoint.spec import parse

        spec = parse(spec).name
    elif Path(spec).expanduser().exists():
        spec = Path(spec).expanduser().resolve().stem
    return plain_name(spec) or "base"

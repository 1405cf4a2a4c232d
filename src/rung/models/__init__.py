"""Models: messages in, text and usage out; for a trainable model also examples in, an adapter folder out.

`open_model` is the only factory. A model of another kind is added by `register_model`. Knows the catalogue of named
models, chat templates, the local model, endpoints, metering and speed. Knows nothing of tasks, metrics or solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rung.models.metering import Metered as Metered
from rung.models.metering import metered as metered
from rung.models.places import is_endpoint, remember_endpoint
from rung.models.speed import answers_key as answers_key
from rung.models.speed import describe as describe
from rung.models.speed import speed_of as speed_of
from rung.types import AnswersBy, Model

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opener:
    """A way to open models.

    claims: whether a spec is one of its own. open: spec and say -> the model. version: spec and say -> the model's
    version, without loading its network; None: the opened model says it.
    """

    claims: Callable[[str], bool]
    open: Callable[[str, Say], Model]
    version: Callable[[str, Say], str] | None = None


def _open_local(spec: str, say: Say) -> Model:
    from rung.models.loading import load_model

    return load_model(spec, say=say)


def _local_version(spec: str, say: Say) -> str:
    from rung.models.catalogue import ensure_model
    from rung.models.four_bit import split_spec, version_in_4_bits
    from rung.models.identity import version_of

    name, four_bit = split_spec(spec)
    version = version_of(ensure_model(name, say=say))
    return version_in_4_bits(version) if four_bit else version


def _open_endpoint(spec: str, say: Say) -> Model:
    from rung.models.endpoint.endpoint import Endpoint
    from rung.models.endpoint.spec import parse

    model = Endpoint(parse(spec), say=say)
    model.look()
    remember_endpoint(model.spec)
    return model


def _endpoint_version(spec: str, say: Say) -> str:
    from rung.models.endpoint.spec import parse, version_of

    return version_of(parse(spec))


OPENERS: list[Opener] = [
    Opener(is_endpoint, _open_endpoint, _endpoint_version),
    Opener(lambda _: True, _open_local, _local_version),
]
"""The first one that claims a spec opens it. The last one takes any: a local model."""

_opened: dict[tuple[Opener, str], Model] = {}
"""At most one model, which was opened for its version and waits for `open_model`."""


def register_model(
    claims: str | Callable[[str], bool],
    open: Callable[[str, Say], Model],
    version: Callable[[str, Say], str] | None = None,
) -> Opener:
    """Adds a way to open models, before all others, and returns it; `OPENERS.remove` takes it out again.

    claims: a prefix of specs ("fake:"), or a function of the spec. The others are as in Opener.
    """
    prefix = claims
    matches = (lambda spec: spec.startswith(prefix)) if isinstance(prefix, str) else prefix
    opener = Opener(matches, open, version)
    OPENERS.insert(0, opener)
    return opener


def open_model(spec: str, *, engine: AnswersBy = "local", say: Say = lambda _: None) -> Model:
    """The model that a spec names, ready to answer. say: gets one line before anything slow.

    spec: a catalogue name, a Hugging Face id or folder, or a .gguf file, each with ":4bit" behind it where its linear
    layers are to be kept in 4 bits; an OpenAI-compatible endpoint, as https://host/v1#name or as JSON text with the
    keys of `endpoint.spec.EndpointSpec`; or whatever a registered opener claims. engine: what computes the answers of a
    local model; of any other model it says nothing.
    Raises ModelError, DownloadError or OutOfMemory.
    """
    opener = _opener_of(spec)
    if engine == "vllm" and is_local(spec):
        from rung.engine.variables import check_variables
        from rung.models.vllm.answering_model import open_answered_by_vllm

        check_variables()
        return open_answered_by_vllm(spec, say)
    waiting = _opened.pop((opener, spec), None)
    return waiting if waiting is not None else opener.open(spec, say)


def model_version(spec: str, *, say: Say = lambda _: None) -> str:
    """The version of the model that a spec names. A local network is fetched where it must be, but not loaded.

    Where the opener has no `version`, the model is opened, and the next `open_model` of this spec returns it.
    """
    opener = _opener_of(spec)
    if opener.version is not None:
        return opener.version(spec, say)
    model = _opened[opener, spec] if (opener, spec) in _opened else opener.open(spec, say)
    _opened.clear()
    _opened[opener, spec] = model
    return model.version


def text_counter(spec: str) -> tuple[Callable[[str], int], int] | None:
    """(text -> its number of tokens, tokens that fit the context) of a local model, without loading its weights.

    None for an endpoint, for a model that is not on this machine yet, and for one of a registered opener.
    """
    if not is_local(spec):
        return None
    from rung.models.token_counter import counter_of

    return counter_of(spec.removesuffix(":4bit"))


def is_local(spec: str) -> bool:
    """Whether the spec names a model that is computed in this process by rung's own engine."""
    return _opener_of(spec).version is _local_version


def vllm_may_answer(spec: str) -> bool:
    """Whether `engine: vllm` changes what answers with this model: a local one that is not in rung's 4 bits."""
    from rung.models.four_bit import SUFFIX

    return is_local(spec) and not spec.endswith(SUFFIX)


def remark_of(model: Model) -> str | None:
    """What a user should know of a model before a run, in a sentence; None where there is nothing."""
    remark = getattr(model, "remark", None)
    return remark if isinstance(remark, str) else None


def remark_on_cards(model: Model, spec: str) -> str | None:
    """That RUNG_CARDS asks for cards that are not there, in a sentence; None where it does not, and for a model that is
    not local. model: as it was opened for `spec`."""
    if not is_local(spec):
        return None
    import torch

    from rung.engine import devices

    return devices.remark_on_cards(torch.device(str(describe(model).get("device", "cpu"))))


def next_larger(model: Model, spec: str) -> str | None:
    """The hub id of the next larger model that this machine could train, or None where that cannot be told.

    model: as it was opened for `spec`. Sizes are known for local models alone. Nothing is fetched.
    """
    if not is_local(spec):
        return None
    import torch

    from rung.models import suggestions

    return suggestions.next_larger(spec, torch.device(str(describe(model).get("device", "cpu"))))


def _opener_of(spec: str) -> Opener:
    return next(opener for opener in OPENERS if opener.claims(spec))

"""What a model is like: `rung models check` prints it. Loads a local model and times it; asks an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.engine.variables import asked_ways
from rung.errors import RungError, first_line
from rung.models import Say, describe, open_model, remark_on_cards, speed_of
from rung.models.computing import ways_in_words
from rung.models.sizes import as_count, as_size
from rung.models.speed import kept_since
from rung.types import AnswersBy, Model, Price, Speed, Trainable

_NAMED = 6  # end tokens that are shown


@dataclass(frozen=True)
class ModelCheck:
    """name. facts: (what, the finding), in the order to be shown. speed: None where it could not be timed."""

    name: str
    facts: tuple[tuple[str, str], ...]
    speed: Speed | None


def check_model(spec: str, *, engine: AnswersBy = "local", say: Say = lambda _: None) -> ModelCheck:
    """Loads a model and says how it is computed; of the bare address of an endpoint, says which models it serves.

    engine: what computes the answers of a local model.

    Raises ModelError, DownloadError or OutOfMemory.
    """
    from rung.models.endpoint.check import list_served, split_mapping, without_scheme

    if (wrong := without_scheme(spec)) is not None:
        raise wrong
    mapping = spec.lstrip().startswith("{")
    remote = mapping or spec.lstrip().startswith(("http://", "https://"))
    spec, price = split_mapping(spec) if mapping else (spec, None)
    say("asking the endpoint …" if remote else f"loading {spec} …")
    if remote and "#" not in spec and not mapping:
        return ModelCheck(spec, tuple(list_served(spec)), None)
    model = open_model(spec, engine=engine, say=say)
    try:
        return _check_opened(model, spec, price, say)
    finally:
        if (close := getattr(model, "close", None)) is not None:
            close()


def _check_opened(model: Model, spec: str, price: Price | None, say: Say) -> ModelCheck:
    """As `check_model`. price: that an endpoint's mapping names."""
    if (known := _endpoint(model, price)) is not None:
        return ModelCheck(model.name, tuple(known), None)
    from rung.models.local import LocalModel

    local = model if isinstance(model, LocalModel) else None
    facts = [("path", _path(local.engine))] if local is not None else []
    facts += _computing(model)
    facts += _asked(model, say)
    facts.append(("context", f"{model.context_length:,} tokens"))
    facts += _chat(local) if local is not None else []
    facts.append(("training", _training(model)))
    kept = kept_since(model)
    known_speed = kept and f"its speed was measured on {kept.when}; delete {kept.file} to time it again"
    say(known_speed or "timing it …")
    try:
        speed = speed_of(model)
        told = f"reads {speed.read:,.0f}, writes {speed.write:,.0f}, trains {speed.train:,.0f} tokens a second"
        if kept is not None and kept_since(model) == kept:
            told += f", as measured on {kept.when}"
    except RungError:
        raise
    except Exception as error:  # the figures are worth less than what was found before
        speed, told = None, f"could not be timed ({type(error).__name__}: {first_line(error)})"
    facts.append(("speed", told))
    facts += [*_ways(local), *_memory(local)] if local is not None else []
    if (remark := remark_on_cards(model, spec)) is not None:
        facts.append(("cards", remark))
    return ModelCheck(model.name, tuple(facts), speed)


def _endpoint(model: Model, price: Price | None) -> list[tuple[str, str]] | None:
    """What is known of an endpoint; None where the model is none."""
    from rung.models.endpoint.spec import EndpointSpec

    if not isinstance(getattr(model, "spec", None), EndpointSpec):
        return None
    from rung.models.endpoint.check import check_endpoint
    from rung.models.endpoint.endpoint import Endpoint

    assert isinstance(model, Endpoint)
    return check_endpoint(model, price)


def _path(engine: Any) -> str:
    if engine.path == "tree":
        fused, layers = engine.fused
        return f"fast: packed rows and shared prefixes; {fused} of {layers} layers fused"
    return f"as transformers computes it, slower: {engine.reason}"


def _computing(model: Model) -> list[tuple[str, str]]:
    known = describe(model)
    if not known:
        return []
    where = f"in {known['dtype']} on {known['device']} ({known['device_name']}, {known['threads']} threads)"
    return [("computes", where), *([("answers", f"by {known['answers']}")] if "answers" in known else [])]


def _asked(model: Model, say: Say) -> list[tuple[str, str]]:
    """That vLLM starts and answers, where it is to answer. Raises ModelError where it does not."""
    from rung.models.vllm.answering_model import VllmModel

    if not isinstance(model, VllmModel):
        return []
    say("asking vLLM a question …")
    answer_s = model.try_out()
    return [("asked", f"vLLM started in {model.start_s:.0f} s, and answered a question in {answer_s:.1f} s")]


def _ways(model: Any) -> list[tuple[str, str]]:
    """In which ways it is computed; nothing for the ordinary CPU. After it was timed: a way may be given up then."""
    ways = model.engine.ways
    if model.engine.device.type != "cuda" and asked_ways() is None and not ways.given_up:
        return []
    return [("ways", ways_in_words(ways.taken, ways.given_up))]


def _chat(model: Any) -> list[tuple[str, str]]:
    tokenizer = model.chat.tokenizer
    ends = [str(token) for token in tokenizer.convert_ids_to_tokens(sorted(model.chat.stop_ids))]
    more = f" and {len(ends) - _NAMED} more" if len(ends) > _NAMED else ""
    template = "its own" if getattr(tokenizer, "chat_template", None) else "none; turns are plain text"
    return [("answers end", (", ".join(ends[:_NAMED]) + more) or "with the turn"), ("chat template", template)]


def _training(model: Model) -> str:
    from rung.engine.target_modules import adaptable_layers
    from rung.models.local import LocalModel

    if isinstance(model, LocalModel) and not adaptable_layers(model.network):
        return "it has no linear layers that an adapter could change"
    return "LoRA adapters" if isinstance(model, Trainable) else "not from here"


def _memory(model: Any) -> list[tuple[str, str]]:
    from rung.engine.memory import used_bytes

    network, device = model.network, model.engine.device
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    told = f"{as_count(network.num_parameters())} weights take {as_size(weights)}"
    used = used_bytes(device)
    if used is not None:
        where = "of the GPU" if device.type == "cuda" else "in all, Python and torch included"
        told += f"; this check took at most {as_size(used)} {where}"
    return [("memory", told)]

"""What an endpoint is like, as `rung models check` shows it: asks it two small questions, with fresh calls."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from typing import Any

from rung.errors import ModelError
from rung.models.endpoint.endpoint import Endpoint
from rung.models.endpoint.prices import why_no_price
from rung.models.endpoint.spec import ANY, EndpointSpec, parse
from rung.types import Constraint, Decoding, Generation, Message, Price, Request

Facts = list[tuple[str, str]]

_MOST_TOKENS = 32
_PLAIN = "What is 2 + 2? Answer with the number only."
_HELD, _LABELS = "Is ice cold? Answer with yes or no only.", ("yes", "no")
_SHOWN = 40  # characters of an answer
_MODES = {
    "choice": "labels as a choice of the server",
    "tokens": "labels as a grammar of their tokens",
    "grammar": "labels as a grammar of the server",
    "json_schema": "by response_format json_schema",
    "json_object": "by response_format json_object with a schema",
    "none": "not held; replies are parsed, and asked for again where they do not fit",
}
_NAMED = 5  # models that are named where another one was asked for
_NO_SCHEME = re.compile(
    r"(localhost|[\w.-]+\.[a-z0-9]+|\[[0-9a-f:]+\])(:\d+)?/v\d\w*/?(#|$)|([\w.-]+|\[[0-9a-f:]+\]):\d+(/|#|$)"
)


def without_scheme(name: str) -> ModelError | None:
    """The error of a name that is the address of an endpoint, but for its beginning; None where it is no address."""
    if "://" in name or _NO_SCHEME.match(name.strip().lower()) is None or os.path.exists(name):
        return None
    address = name.strip().partition("?")[0]  # the rest may hold a key
    return ModelError(
        f"{address}: an address begins with http:// or https://. Write http://{address} for a server of your own "
        f"without TLS, else https://{address}."
    )


def split_mapping(text: str) -> tuple[str, Price | None]:
    """An endpoint's mapping as a task may have it, as JSON: (its spec, its price). The label is left out.

    Text that is no JSON mapping comes back as it is. Raises ModelError for a wrong price.
    """
    from rung.data.key_values import WrongKey
    from rung.data.model_keys import price_of

    try:
        record: Any = json.loads(text)
    except ValueError:
        return text, None
    if not isinstance(record, Mapping):
        return text, None
    try:
        price = price_of(record["price"]) if "price" in record else None
    except WrongKey as wrong:
        where = ".".join(("price", *wrong.inside))
        raise ModelError(f"endpoint: {where} {wrong}") from None
    return json.dumps({key: value for key, value in record.items() if key not in ("price", "label")}), price


def check_endpoint(model: Endpoint, price: Price | None = None) -> Facts:
    """(what, the finding), in the order to be shown. price: as the task has it; None: it is looked up.

    Raises ModelError where the endpoint gives no answer.
    """
    spec = model.spec
    if price is not None and price.usd_per_hour is None:
        model.use_purse(None, price)
    (plain,) = model.timed([_request(_PLAIN)], 1)
    if plain.error is not None:
        raise ModelError(f"{spec.where}: it gave no answer ({plain.error}). Check address, name and params.")
    constraint = Constraint("labels", _LABELS)
    model.check(constraint)
    # As in a run, so that what the endpoint refuses is found out. The number makes a question that no cache knows.
    model.generate([_request(f"{_HELD} (Question {secrets.randbelow(10**6)}.)", constraint)])
    known = model.facts()
    facts = [("endpoint", f"{spec.endpoint} is reached"), ("key", _key(spec))]
    facts.append(("served", _served(spec, known["served"], known["fingerprints"])))
    if (other := _not_listed(model)) is not None:
        facts.append(("name", other))
    if known["server"]:
        facts.append(("server", known["server"]))
    told = known["context_length"]
    facts.append(("context", f"{told:,} tokens" if told else f"not told; {model.context_length:,} tokens are assumed"))
    modes = ", ".join(_MODES.get(mode, mode) for mode in known["response_format"])
    facts.append(("structured", modes or "not known; the answer to the question did not come whole"))
    if known["thinks"]:
        facts.append(("thinks", "yes, before each answer; thoughts are paid for as output"))
    facts.append(("training", "not from here"))
    facts.append(("price", _price(spec, known, price)))
    facts.append(("ends", known["shutdown_date"] or "no day is told"))
    facts.append(("seconds", _seconds(plain)))
    facts.append(("answer", repr(plain.text[:_SHOWN])))
    if known["usd"]:
        facts.append(("cost", f"{known['usd']:.6f} USD for this check"))
    return facts


def list_served(address: str) -> Facts:
    """What an endpoint serves, for an address without the name of a model. Raises ModelError."""
    model = Endpoint(parse(f"{address}#{ANY}"))
    try:
        names = model.names_served()
    finally:
        model.close()
    if not names:
        return [("serves", f"it lists no models; name one: rung models check '{model.spec.endpoint}#NAME'")]
    facts = [("serves", f"{len(names)} models; to try one: rung models check '{model.spec.endpoint}#{names[0]}'")]
    return facts + [("model", name) for name in names]


def _request(question: str, constraint: Constraint | None = None) -> Request:
    return Request((Message("user", question),), Decoding(_MOST_TOKENS), constraint)


def _key(spec: EndpointSpec) -> str:
    return "none is sent" if spec.key_variable is None else f"found in the environment variable {spec.key_variable}"


def _served(spec: EndpointSpec, served: dict[str, int], fingerprints: dict[str, int]) -> str:
    names = ", ".join(name or "a model that is not named" for name in served)
    said = f"{names}{', fingerprint ' + ', '.join(fingerprints) if fingerprints else ', no fingerprint'}"
    return said if spec.name in served else f"{said}; {spec.name} was asked for"


def _not_listed(model: Endpoint) -> str | None:
    """What is to be known where the endpoint answers to a name that its list does not have."""
    spec, listed = model.spec, model.listed
    if not listed.names or listed.has(spec.name) or spec.is_azure:  # Azure lists models, and calls deployments
        return None
    more = len(listed.names) - _NAMED
    names = ", ".join(listed.names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    served = "; it answers with that model, whatever name it is asked for" if listed.weights else ""
    return f"{spec.name} is not in the server's list, which has {names}{served}"


def _price(spec: EndpointSpec, known: dict[str, Any], given: Price | None) -> str:
    if given is not None and given.usd_per_hour is not None:
        return f"{given.usd_per_hour:g} USD an hour (the task's)"
    price = known["price"]
    if not isinstance(price, dict):
        own = "A server of your own has a price by the hour: price: {usd_per_hour: …} in the task."
        return f"not known. {own if spec.is_loopback else why_no_price(spec.endpoint, spec.name)}"
    parts = {"in": "input", "out": "output", "cached": "cached input", "cache_written": "input kept for later"}
    known_parts = {word: price[key] for k, word in parts.items() if (key := f"usd_per_million_{k}") in price}
    usd = [f"{figure:g} USD {word}" for word, figure in known_parts.items()]
    if given is not None:
        return f"{', '.join(usd)} a million tokens (the task's)"
    note = f" {known['price_note']}" if known["price_note"] else ""
    return f"{', '.join(usd)} a million tokens ({known['price_source']}, as of {known['price_dated']}).{note}"


def _seconds(answer: Generation) -> str:
    first = "" if answer.first_token_s is None else f"{answer.first_token_s:.2f} to the first token, "
    return f"{first}{answer.latency_s:.2f} in all ({answer.tokens_in} tokens in, {answer.tokens_out} out)"

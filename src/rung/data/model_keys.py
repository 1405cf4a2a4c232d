"""`model:`, `models:` and `price:` of task.yaml: what names a model, which price belongs to which, and their names.

Knows how a local model and an endpoint are written down; opens neither. An API key never stands in a task: whatever
could be one is refused, in a message that does not repeat it.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationInfo

from rung.data.key_values import WrongKey, beside_task, folder_name_problem
from rung.data.rows import kind_of, nearest
from rung.types import ModelSpec, Price

DEFAULT_MODEL = "smollm2-135m-instruct"
FOUR_BIT = ":4bit"
"""Ends the name of a model whose linear layers are kept in 4 bits; `rung.models.four_bit` reads it."""
MODEL_HINT = f"Write model: {DEFAULT_MODEL}, a folder or a GGUF file, or {{endpoint: https://host/v1, name: …}}."
PRICE_HINT = "Write price: {usd_per_hour: 0.40}."
TOKENS_HINT = "Write price: {usd_per_million_in: 0.25, usd_per_million_out: 2}."
"""Of an endpoint, which is mostly paid by the token."""
LOCAL_KEYS = ("name", "load_in_4bit", "price", "label")
ENDPOINT_KEYS = (
    *("endpoint", "name", "key_env", "api_version", "in_flight", "timeout", "response_format", "batch", "params"),
    *("price", "label"),
)
RESPONSE_FORMATS = ("auto", "json_schema", "json_object", "none")
SECRETS = ("api_key", "apikey", "api-key", "key", "token", "secret", "password", "authorization", "bearer")
"""Names of keys, in lower case, under which people write a secret."""
SECRET_HINT = (
    "Put the API key into an environment variable, and write the variable's name: key_env: OPENAI_API_KEY. "
    "If this file was shared, replace the key."
)
_ALIASES = ("url", "base_url", "api_base")  # how other tools call the endpoint
_REMOTE = (*(key for key in ENDPOINT_KEYS if key not in LOCAL_KEYS), *_ALIASES)
_DEFAULTS = {"timeout": 600, "response_format": "auto", "batch": False, "params": {}}
SET_BY_RUNG = ("model", "messages", "stream", "n", "response_format")
_NAME_BYTES = 60  # a folder's name also holds the strategy's


@dataclass(frozen=True)
class ModelEntry:
    """A model as a task names it. spec: what `rung.models.open_model` takes. short: a name made of the model's own."""

    spec: str
    short: str
    endpoint: bool = False
    label: str | None = None
    price: Price | None = None

    @property
    def name(self) -> str:
        return self.label or self.short


DEFAULT = ModelEntry(DEFAULT_MODEL, DEFAULT_MODEL)


def one_model(value: Any, info: ValidationInfo) -> ModelEntry:
    """The model that a text or a mapping names. Raises ValueError, WrongKey for what is wrong within a mapping."""
    return named_model(value, info, MODEL_HINT)


def named_model(value: Any, info: ValidationInfo, hint: str) -> ModelEntry:
    """As `one_model`, for any key that names one. hint: how to write that key."""
    if isinstance(value, str):
        return _local(value, info, hint)
    if not isinstance(value, dict):
        text = f'; quote it: "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
        raise ValueError(f"is {kind_of(value)}, which names no model{text}. {hint}")
    for key in value:
        refuse_secret_key(key)
    remote = "name" not in value or any(key in _REMOTE for key in value)
    keys = ENDPOINT_KEYS if remote else LOCAL_KEYS
    for key in value:
        if key not in keys:
            raise WrongKey(unknown_key(str(key), keys), str(key))
    if remote and "endpoint" not in value:
        raise ValueError(f"is a mapping that names no endpoint, nor a model of this machine. {hint}")
    price_hint = TOKENS_HINT if remote else PRICE_HINT
    price = price_of(value["price"], "price", hint=price_hint) if "price" in value else None
    label = _label(value["label"]) if "label" in value else None
    found = _endpoint(value) if remote else _local_mapping(value, info, hint)
    return replace(found, price=price, label=label)


def refuse_secret_key(key: object) -> None:
    """Raises ValueError where a key asks for a secret as its value."""
    if str(key).lower() in SECRETS:
        raise WrongKey(f"would hold a secret, and a task never does. {SECRET_HINT}", str(key))


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What is wrong with a key that is not known; an alias of other tools is told like a slip."""
    guess = "endpoint" if key.lower() in _ALIASES else nearest(key, known)
    hint = f'Did you mean "{guess}"?' if guess in known else f"The keys here are {', '.join(known)}."
    return f"is an unknown key. {hint}"


def price_of(value: Any, *inside: str, hint: str = PRICE_HINT) -> Price:
    """The price that a mapping says. hint: how to write it. Raises WrongKey."""
    known = tuple(Price.__dataclass_fields__)
    if not isinstance(value, dict):
        raise WrongKey(f"is {kind_of(value)}, but must be a mapping. {hint}", *inside)
    for key, number in value.items():
        if key not in known:
            raise WrongKey(unknown_key(str(key), known), *inside, str(key))
        if not _is_number(number) or number < 0:
            raise WrongKey(f"is {_shown(number)}, but must be a number of dollars. {hint}", *inside, key)
    if not value:
        raise WrongKey(f"says no price. {hint}", *inside)
    if "usd_per_hour" in value and len(value) > 1:
        raise WrongKey("holds the machine's price and a price of tokens. Keep one of them.", *inside)
    if "usd_per_hour" not in value and not {"usd_per_million_in", "usd_per_million_out"} <= set(value):
        raise WrongKey("of tokens needs usd_per_million_in and usd_per_million_out. Add what is missing.", *inside)
    return Price(**{key: float(number) for key, number in value.items()})


def model_specs(named: Sequence[ModelEntry], price: Price | None) -> tuple[ModelSpec, ...]:
    """The models of a task with their names and prices. price: that of the whole task, None where it has none.

    Raises ValueError where two models have one name, or the price belongs to none of them.
    """
    first: dict[str, int] = {}
    for i, model in enumerate(named, 1):
        if (before := first.setdefault(model.name.casefold(), i)) != i:
            raise ValueError(
                f"models {before} and {i} are both called {model.name}. Name the two models differently with label:, "
                f"such as {{name: …, label: {model.name[:40]}-b}}."
            )
    return tuple(ModelSpec(m.name, m.spec, m.price) for m in _priced(named, price))


def _priced(named: Sequence[ModelEntry], price: Price | None) -> Iterator[ModelEntry]:
    if price is None:
        yield from named
        return
    takes = [model.price is None and (len(named) == 1 or not model.endpoint) for model in named]
    if len(named) > 1 and price.usd_per_hour is None:
        raise ValueError("price of tokens cannot hold for several models. Give each endpoint its own price.")
    if len(named) == 1 and not any(takes):
        raise ValueError("price stands twice, in the model and beside it. Keep one.")
    if not any(takes):
        raise ValueError(
            "price by the hour is that of local models, and no local model is without a price of its own. Delete it, "
            "or give each endpoint its own price."
        )
    for model, is_its_own in zip(named, takes, strict=True):
        yield replace(model, price=price) if is_its_own else model


def _local_mapping(value: Mapping[str, Any], info: ValidationInfo, hint: str) -> ModelEntry:
    name, four_bit = value["name"], value.get("load_in_4bit", False)
    if not isinstance(name, str):
        raise WrongKey(f"is {kind_of(name)}, not text. {hint}", "name")
    if not isinstance(four_bit, bool):
        raise WrongKey(f"is {kind_of(four_bit)}. Write load_in_4bit: true.", "load_in_4bit")
    return _local(name.removesuffix(FOUR_BIT) + FOUR_BIT if four_bit else name, info, hint)


def _local(value: str, info: ValidationInfo, hint: str) -> ModelEntry:
    suffix = FOUR_BIT if value.endswith(FOUR_BIT) else ""
    value = value.removesuffix(suffix)
    if not value.strip():
        raise ValueError(f"is empty. {hint}")
    if re.match(r"https?://", value, re.IGNORECASE):
        raise ValueError(_how_to_write(value))
    if value.lstrip().startswith("{"):
        raise ValueError(f"is text that looks like a mapping. Write it without quotes. {hint}")
    path = beside_task(value, info)
    gguf = value.lower().endswith(".gguf")
    if os.path.isdir(path) or (gguf and os.path.isfile(path)):
        return ModelEntry(str(path) + suffix, _short(path.name + suffix))
    if os.path.isfile(path):
        raise ValueError(f"names {value}, a file that is no GGUF. {hint}")
    if gguf or value.startswith((".", "/", "\\", "~")):
        raise ValueError(f"names {value}, which does not exist ({path}). Paths are relative to the task file.")
    return ModelEntry(value + suffix, _short(value + suffix))


def _how_to_write(url: str) -> str:
    """The mapping that belongs in the place of a bare address."""
    address, _, name = url.partition("#")
    try:
        parts = urlsplit(address)
        plain = parts.username is None and not parts.query
    except ValueError:
        plain = False
    shown = address.rstrip("/") if plain else "https://host/v1"  # the rest may hold a key
    return (
        "is the address of an endpoint, and an endpoint serves several models. Write "
        f"{{endpoint: {shown}, name: {name or 'MODEL'}, key_env: VARIABLE}}, where VARIABLE is the environment "
        "variable that holds your API key."
    )


def _endpoint(value: Mapping[str, Any]) -> ModelEntry:
    """An endpoint's spec is JSON: keys sorted, defaults left out; `rung.models.endpoint.spec` reads it."""
    address, version = _address(value["endpoint"])
    if "name" not in value:
        raise ValueError(f"has no name. Write {{endpoint: {address}, name: …}} with the model's name there.")
    if not isinstance(value["name"], str) or not value["name"].strip():
        raise WrongKey(f"is {_shown(value['name'])}, but must be the model's name as text. Quote it.", "name")
    name = value["name"].strip()
    record = {key: value[key] for key in ENDPOINT_KEYS if key in value and key not in ("price", "label")}
    record |= {"endpoint": address, "name": name}
    if "api_version" in record or version is not None:
        record["api_version"] = _api_version(record.get("api_version", version))
    _check_calls(record)
    kept = {key: given for key, given in record.items() if key not in _DEFAULTS or given != _DEFAULTS[key]}
    return ModelEntry(json.dumps(kept, sort_keys=True, ensure_ascii=False), _short(name), endpoint=True)


@dataclass(frozen=True)
class Address:
    """An endpoint's base address in one spelling; Azure's api-version, and a model behind #, where it names them."""

    url: str
    api_version: str | None
    model: str


class NoAddress(ValueError):
    """A text that is no address of an endpoint. The message is what of it may be shown, which may be nothing."""


class PrivateParts(ValueError):
    """An address with a user, a password or parameters, which may be a key. The message is its host."""


def base_address(text: str) -> Address:
    """The address of an endpoint. Raises NoAddress and PrivateParts."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise NoAddress("") from None
    shown = f"{parts.scheme}://{parts.hostname}" if parts.hostname else ""  # the rest may hold a key
    try:
        port = parts.port
    except ValueError:
        raise NoAddress(shown) from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise NoAddress(shown)
    query = parse_qs(parts.query)
    if parts.username is not None or set(query) - {"api-version"}:
        raise PrivateParts(parts.hostname)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    url = f"{parts.scheme.lower()}://{host}{f':{port}' if port else ''}{path}"
    return Address(url, query.get("api-version", [None])[0], parts.fragment)


def _address(value: object) -> tuple[str, str | None]:
    """The base address in one spelling, and Azure's api-version where the address names one."""
    example = "Write endpoint: https://api.openai.com/v1, or http://localhost:8000/v1 for a server of your own."
    if not isinstance(value, str):
        raise WrongKey(f"is {kind_of(value)}, but must be an address. {example}", "endpoint")
    if re.search(r"\s", value.strip()):
        raise WrongKey(f"is no address. {example}", "endpoint")
    try:
        found = base_address(value)
    except NoAddress:
        raise WrongKey(f"is no address. {example}", "endpoint") from None
    except PrivateParts:
        raise WrongKey(f"holds a user, a password or parameters. Leave them out. {SECRET_HINT}", "endpoint") from None
    if found.model:
        raise WrongKey(f"names a model behind #. Write name: {found.model}", "endpoint")
    return found.url, found.api_version


def _api_version(value: object) -> str:
    if isinstance(value, datetime.date):  # 2024-10-21, as YAML reads it
        return value.isoformat()[:10]
    if not isinstance(value, str) or not value.strip():
        raise WrongKey(f'is {_shown(value)}, but must be text. Write api_version: "2024-10-21".', "api_version")
    return value


def _check_calls(record: Mapping[str, Any]) -> None:
    """Refuses values with which an endpoint cannot be called. record: its keys, those that are given."""
    if "key_env" in record:
        _check_variable(record["key_env"])
    in_flight, timeout = record.get("in_flight", 1), record.get("timeout", 1)
    if isinstance(in_flight, bool) or not isinstance(in_flight, int) or in_flight < 1:
        raise WrongKey(f"is {_shown(in_flight)}, but must be a whole number from 1. Write in_flight: 16.", "in_flight")
    if not _is_number(timeout) or timeout <= 0:
        raise WrongKey(f"is {_shown(timeout)}, but must be a number of seconds. Write timeout: 120.", "timeout")
    if (form := record.get("response_format", "auto")) not in RESPONSE_FORMATS:
        raise WrongKey(f"is {_shown(form)}. Use one of {', '.join(RESPONSE_FORMATS)}.", "response_format")
    if not isinstance(batch := record.get("batch", False), bool):
        raise WrongKey(f"is {_shown(batch)}. Write batch: true.", "batch")
    params = record.get("params", {})
    if not isinstance(params, dict):
        raise WrongKey(f"is {kind_of(params)}, but must be a mapping. Write params: {{top_p: 0.9}}.", "params")
    for key in params:
        if key in SET_BY_RUNG:
            raise WrongKey(f"holds {key}, which rung sets itself. Delete it.", "params")
    if fact := secret_in(params):
        raise WrongKey(f"{fact}. {SECRET_HINT}", "params")
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongKey(f"holds a value that JSON cannot hold ({error}). Quote dates.", "params") from None


def _check_variable(value: object) -> None:
    """key_env names a variable. What is no such name may be the key itself, and is not repeated."""
    if isinstance(value, str) and looks_like_a_secret(value):
        raise WrongKey(f"holds what looks like the API key itself. {SECRET_HINT}", "key_env")
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise WrongKey(f"is no name of an environment variable. {SECRET_HINT}", "key_env")


def secret_in(value: object) -> str | None:
    """What may be a secret anywhere within params: a key that is made for one, or a text that begins like one."""
    if isinstance(value, str) and begins_like_a_key(value):
        return "holds what looks like an API key"
    if isinstance(value, Mapping):
        if any(str(key).lower() in SECRETS for key in value):
            return "holds a key that is made for a secret"
        value = list(value.values())
    found = map(secret_in, value) if isinstance(value, list) else ()
    return next((fact for fact in found if fact is not None), None)


def begins_like_a_key(text: str) -> bool:
    """Whether a text begins as providers begin their API keys."""
    return len(text) >= 16 and re.match(r"(sk|pk|xai|pplx|nvapi)-|(gsk|hf|r8)_|AIza|Bearer ", text) is not None


def looks_like_a_secret(text: str) -> bool:
    """Whether a text may be an API key: by its beginning, or a long stretch of letters and digits in it.

    Names of environment variables are words in capitals between underscores, with a digit or two.
    """
    stretches = re.findall(r"[A-Za-z0-9]{20,}", text)
    return begins_like_a_key(text) or any(
        len(digits := re.findall(r"\d", s)) >= 5 or (digits and re.search(r"[a-z]", s)) for s in stretches
    )


def _label(value: object) -> str:
    if not isinstance(value, str):
        raise WrongKey(f'is {kind_of(value)}, not text. Write label: "{value}".', "label")
    problem = folder_name_problem(value) or ("holds '@'" if "@" in value else None)
    if problem or len(value.encode()) > _NAME_BYTES:
        problem = problem or f"is longer than {_NAME_BYTES} bytes"
        raise WrongKey(f"{problem}, so it cannot name folders. Use letters, digits, - and _.", "label")
    return value


def _short(name: str) -> str:
    """The last part of a model's name, fit for a folder's name."""
    last = re.sub(r"[^\w.-]+", "-", re.split(r"[/\\]", name.rstrip("/\\"))[-1])
    return last.encode()[:_NAME_BYTES].decode(errors="ignore").strip(".-") or "model"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    """A number as it is, anything else by its kind: a text may be a secret."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else kind_of(value)

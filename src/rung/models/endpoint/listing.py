"""What an endpoint's list of models tells of one model: whether it is there, when it ends, how long its context is.

Endpoints tell little, each in fields of its own, and some have no list. Nothing in here is an error.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rung.models.endpoint.structured import Server

_ENDS = ("shutdown_date", "expiration_date", "retirement_date")  # OpenAI's; OpenRouter's; others'
_LENGTHS = (
    "max_model_len",  # vLLM
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",
    "n_ctx",  # llama.cpp, as it was started
    "n_ctx_train",  # llama.cpp, as the model was trained
)
_SERVERS: dict[str, Server] = {"vllm": "vllm", "llamacpp": "llama.cpp", "me": "llama-cpp-python"}
"""Value of owned_by -> the server."""

_KEPT_NAMES = 2_000
_NEAREST = 5


@dataclass(frozen=True)
class Listed:
    """What was told of a model.

    names: of all models, empty where there is no list. shutdown_date: ISO date, None where none is told.
    context_length: in tokens. server: where it is known by its list. weights: tells the model of a server apart that
    serves whatever it was started with under any name, as llama.cpp's do; else empty.
    """

    names: tuple[str, ...] = ()
    shutdown_date: str | None = None
    context_length: int | None = None
    server: Server | None = None
    weights: str = ""

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def has(self, name: str) -> bool:
        return _plain(name) in self.names

    def nearest(self, name: str) -> list[str]:
        """Names like this one, best first; some names at least, where there are few."""
        alike = difflib.get_close_matches(name, self.names, n=_NEAREST, cutoff=0.5)
        return alike or (list(self.names) if len(self.names) <= _NEAREST else [])


def listed_from(record: Mapping[str, Any]) -> Listed:
    """What `Listed.record` gave."""
    return Listed(**{**record, "names": tuple(record.get("names", ()))})


def read_listing(body: bytes, name: str) -> Listed:
    """What the body of GET /models says of a model. An unreadable body says nothing."""
    try:
        record: Any = json.loads(body)
    except ValueError:
        return Listed()
    rows = record.get("data", record.get("models")) if isinstance(record, Mapping) else record
    models = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    by_name = {_plain(row.get("id") or row.get("name")): row for row in models}
    names = [known for known in by_name if known]
    own = by_name.get(_plain(name), {})
    owners = {str(row.get("owned_by")) for row in (own, *(models if len(models) == 1 else ()))}
    server = next((_SERVERS[owner] for owner in sorted(owners) if owner in _SERVERS), None)
    weights = ""
    if len(models) == 1 and server in ("llama.cpp", "llama-cpp-python"):  # its one model answers to any name
        own, weights = models[0], _weights(models[0])
    return Listed(tuple(names[:_KEPT_NAMES]), _shutdown_date(own), _context_length(own), server, weights)


def _weights(row: Mapping[str, Any]) -> str:
    """The model's id and its sizes, without the length of the context that the server was started with."""
    meta = row.get("meta")
    sizes = {name: told for name, told in meta.items() if name != "n_ctx"} if isinstance(meta, Mapping) else {}
    return hashlib.sha256(json.dumps([row.get("id"), sizes], sort_keys=True).encode()).hexdigest()[:16]


def _plain(name: object) -> str:
    return str(name or "").removeprefix("models/")  # Gemini's


def _fields(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All fields at any depth, the outer ones first."""
    yield from record.items()
    for value in record.values():
        if isinstance(value, Mapping):
            yield from _fields(value)


def _shutdown_date(record: Mapping[str, Any]) -> str | None:
    told = [_date(value) for key, value in _fields(record) if key in _ENDS]
    deprecation = record.get("deprecation")  # Mistral: a date; Azure: {"inference": seconds}
    told.append(_date(deprecation.get("inference") if isinstance(deprecation, Mapping) else deprecation))
    return min((date for date in told if date is not None), default=None)


def _date(value: object) -> str | None:
    """An ISO date from a date, a time, or seconds since 1970."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**35:
        return datetime.fromtimestamp(value, UTC).date().isoformat()
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip()).date().isoformat()
        except ValueError:
            return None
    return None


def _context_length(record: Mapping[str, Any]) -> int | None:
    """The first length that is told, of those that say how the server was started before those of the model."""
    told: dict[str, list[int]] = {}
    for key, value in _fields(record):
        if key in _LENGTHS and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            told.setdefault(key, []).append(value)
    found: Sequence[int] = next((told[key] for key in _LENGTHS if key in told), ())
    return min(found, default=None)

"""What both kinds of completions ask in the same way: fields of a request as fields of a ModelCall."""

from __future__ import annotations

from typing import Any

from rung.errors import Unanswerable
from rung.serving.http.schemas import ChatAsked, CompletionAsked, JsonFormat, SchemaFormat
from rung.types import Constraint

_LEAST_LOGPROB = -9999.0
"""JSON has no infinity."""


def common_fields(asked: ChatAsked | CompletionAsked) -> dict[str, Any]:
    """Fields of a ModelCall."""
    return {
        "model": asked.model,
        "context": asked.rung.context if asked.rung is not None else None,
        "temperature": asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "seed": asked.seed,
        "stop": asked.stops,
        "constraint": _constraint(asked),
    }


def _constraint(asked: ChatAsked | CompletionAsked) -> Constraint | None:
    form = asked.response_format
    if isinstance(form, JsonFormat):
        return Constraint("json_schema", {"type": "object"})
    if isinstance(form, SchemaFormat):
        if not form.json_schema.schema_:
            raise Unanswerable("response_format: the schema is empty. Say what the answer holds.", "response_format")
        return Constraint("json_schema", form.json_schema.schema_)
    return None


def finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB) if logprob == logprob else _LEAST_LOGPROB

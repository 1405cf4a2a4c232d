"""The server's OpenAPI schema: bodies are read and checked by rung itself, and are described here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rung import __version__
from rung.serving.http.limits import LONGEST_NAME
from rung.serving.http.schemas import AdapterToLoad, AdapterToUnload, ChatAsked, CompletionAsked
from rung.serving.http.shapes import ErrorBody

_REF = "#/components/schemas/{model}"
_WHY = {
    400: "the request is at fault; `param` names the field",
    401: "the key is missing or not known",
    403: "not with this key, or not under this host name",
    404: "there is no such model",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "the body is not JSON",
    429: "too many requests wait; Retry-After says when to ask again",
    500: "the model failed",
    503: "the server is about to end; Retry-After says when to ask again",
    504: "the answer took too long",
}

Responses = dict[int | str, dict[str, Any]]


def _faults(*statuses: int) -> Responses:
    return {status: {"model": ErrorBody, "description": _WHY[status]} for status in statuses}


def _plain(*statuses: int) -> Responses:
    """Faults of a path whose good responses are no JSON."""
    schema = {"$ref": _REF.format(model=ErrorBody.__name__)}
    content = {"application/json": {"schema": schema}}
    return {status: {"content": content, "description": _WHY[status]} for status in statuses}


READING_FAULTS = _faults(401, 403, 404)
METRICS_FAULTS = _plain(401, 403)
ASKING_FAULTS = _faults(*_WHY)
ADMIN_FAULTS = _plain(400, 401, 403, 404, 408, 413, 415, 429, 500, 503)


def streams() -> Responses:
    what = "The answer; with `stream`, events whose data are chunks, as OpenAI writes them, and [DONE] at the end."
    return {200: {"description": what, "content": {"text/event-stream": {"schema": {"description": what}}}}}


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra` of a path."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def model_in_path() -> dict[str, Any]:
    """For `openapi_extra` of a path that ends with a model's name, which may hold a slash."""
    schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
    return {"parameters": [{"name": "model", "in": "path", "required": True, "schema": schema}]}


def describe(app: FastAPI) -> None:
    """Lets the app tell its schema with the bodies in it."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = get_openapi(
                title=app.title, version=__version__, description=app.description, routes=app.routes, tags=None
            )
            bodies = (ChatAsked, CompletionAsked, AdapterToLoad, AdapterToUnload)
            _, definitions = models_json_schema([(model, "validation") for model in bodies], ref_template=_REF)
            parts = told.setdefault("components", {})
            parts.setdefault("schemas", {}).update(definitions["$defs"])
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            told["security"] = [{}, {"key": []}]
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]

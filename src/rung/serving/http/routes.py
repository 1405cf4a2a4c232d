"""The paths of the server. Each reads its request, asks the service, and hands the answer to who writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rung.errors import Busy, RungError, UnknownModel
from rung.serving.events import Served
from rung.serving.http.bodies import as_schema, read_body, read_object
from rung.serving.http.chat import ChatWriter, chat_asking
from rung.serving.http.completions import CompletionWriter, completion_asking
from rung.serving.http.errors import HttpRefusal
from rung.serving.http.json_text import json_bytes
from rung.serving.http.metrics import ServerMetrics
from rung.serving.http.openapi import (
    ADMIN_FAULTS,
    ASKING_FAULTS,
    METRICS_FAULTS,
    READING_FAULTS,
    body_schema,
    model_in_path,
    streams,
)
from rung.serving.http.replying import reply
from rung.serving.http.schemas import AdapterToLoad, AdapterToUnload, ChatAsked, CompletionAsked
from rung.serving.http.setup import HttpSetup, record_of
from rung.serving.http.shapes import ChatAnswer, CompletionAnswer, HealthShape, ModelShape, ModelsShape


def asking_routes(setup: HttpSetup) -> APIRouter:
    """Chat completions and completions."""
    router = APIRouter(tags=["answers"])

    @router.post(
        "/v1/chat/completions",
        response_model=ChatAnswer,
        responses={**streams(), **ASKING_FAULTS},
        openapi_extra=body_schema(ChatAsked),
    )
    async def chat_completion(request: Request) -> Response:
        """Answers a conversation. With `stream`, as server-sent events."""
        asked, served = await _read(request, setup, ChatAsked)
        return await reply(request, setup, chat_asking(asked, served), ChatWriter(logprobs=bool(asked.logprobs)))

    @router.post(
        "/v1/completions",
        response_model=CompletionAnswer,
        responses={**streams(), **ASKING_FAULTS},
        openapi_extra=body_schema(CompletionAsked),
    )
    async def completion(request: Request) -> Response:
        """To a bundle, the prompt is the input; a base continues it. With `stream`, as server-sent events."""
        asked, served = await _read(request, setup, CompletionAsked)
        return await reply(request, setup, completion_asking(asked, served), CompletionWriter(top=asked.logprobs))

    return router


def model_routes(setup: HttpSetup) -> APIRouter:
    """What answers, and adapters that come and go."""
    router = APIRouter(tags=["models"])
    service = setup.service

    @router.get("/v1/models", response_model=ModelsShape, responses=READING_FAULTS)
    async def list_models() -> Response:
        """The names that answer, bases first."""
        return _json({"object": "list", "data": [_shape(served) for served in service.models()]})

    @router.get(
        "/v1/models/{model:path}", response_model=ModelShape, responses=READING_FAULTS, openapi_extra=model_in_path()
    )
    async def show_model(request: Request) -> Response:
        return _json(_shape(service.model(request.path_params["model"])))

    @router.post(
        "/v1/load_lora_adapter",
        response_class=PlainTextResponse,
        responses=ADMIN_FAULTS,
        openapi_extra=body_schema(AdapterToLoad),
    )
    async def load_lora_adapter(request: Request) -> Response:
        """Serves an adapter, or a bundle, of the server's folder of adapters. Other answers go on."""
        asked = await read_body(request, AdapterToLoad, setup.limits)
        record = record_of(request)
        record.model = asked.lora_name
        try:
            await service.load_adapter(
                asked.lora_name, asked.lora_path, base=asked.base_model, in_place=asked.load_inplace
            )
        except Busy:
            raise
        except RungError as error:
            raise HttpRefusal(400, str(error), param=getattr(error, "param", None)) from error
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @router.post(
        "/v1/unload_lora_adapter",
        response_class=PlainTextResponse,
        responses=ADMIN_FAULTS,
        openapi_extra=body_schema(AdapterToUnload),
    )
    async def unload_lora_adapter(request: Request) -> Response:
        """The name answers no more. Returns once its last answer has ended."""
        asked = await read_body(request, AdapterToUnload, setup.limits)
        record = record_of(request)
        record.model = asked.lora_name
        try:
            await service.unload_adapter(asked.lora_name)
        except UnknownModel as error:
            raise HttpRefusal(404, str(error), param="lora_name", code="model_not_found") from None
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    return router


def watching_routes(setup: HttpSetup, metrics: ServerMetrics) -> APIRouter:
    """For whoever runs the server."""
    router = APIRouter(tags=["watching"])
    service = setup.service

    @router.get("/health", response_model=HealthShape)
    async def health() -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    @router.get("/ready", response_model=HealthShape, responses={503: {"model": HealthShape}})
    async def ready() -> Response:
        """Whether requests are taken: not any more while the server ends."""
        return _json({"status": "ready"}) if service.ready else _json({"status": "draining"}, 503)

    @router.get("/metrics", response_class=PlainTextResponse, responses=METRICS_FAULTS)
    async def figures() -> Response:
        """Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


_Asked = TypeVar("_Asked", ChatAsked, CompletionAsked)


async def _read(request: Request, setup: HttpSetup, schema: type[_Asked]) -> tuple[_Asked, Served]:
    """As `read_body`, and the model that is asked. It is noted first, for requests whose other fields are at fault are
    its requests, too. Raises UnknownModel too."""
    record = record_of(request)
    raw = await read_object(request, setup.limits)
    if isinstance(name := raw.get("model"), str):
        record.model, record.known = name, any(name == served.name for served in setup.service.models())
    asked = as_schema(schema, raw)
    record.streams = bool(asked.stream)
    if setup.log.contents:
        record.asked = raw
    return asked, setup.service.model(asked.model)


def _shape(served: Served) -> ModelShape:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "rung",
        "root": served.root,
        "parent": served.parent,
        "max_model_len": served.context_length,
        "rung": {"kind": served.kind, "solution": served.solution, "context": served.takes_context},
    }


def _json(value: Mapping[str, object], status: int = 200) -> Response:
    return Response(json_bytes(value), status, media_type="application/json")

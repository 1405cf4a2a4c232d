"""The whole application: a service, its paths, and what every request passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from rung.errors import RungError
from rung.serving.http.errors import HttpRefusal, unknown_path
from rung.serving.http.gates import RequestGuard, RequestWatch, refused
from rung.serving.http.metrics import ServerMetrics
from rung.serving.http.openapi import describe
from rung.serving.http.page import PAGE_HEADERS, page_files
from rung.serving.http.routes import asking_routes, model_routes, watching_routes
from rung.serving.http.setup import HttpSetup


def build_app(setup: HttpSetup) -> FastAPI:
    """An ASGI application."""
    app = FastAPI(
        title="rung serve",
        description="Bundles of rung, with OpenAI's interface.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    metrics = ServerMetrics(setup.service)
    for router in (asking_routes(setup), model_routes(setup), watching_routes(setup, metrics)):
        app.include_router(router)
    files = page_files()
    for path, (kind, content) in files.items():
        app.add_api_route(path, _file(kind, content), include_in_schema=False)
    describe(app)

    async def fails(request: Request, error: Exception) -> Response:
        return refused(request, _of_routing(error), setup)

    for kind_of_error in (HttpRefusal, RungError, TimeoutError, HTTPException):
        app.add_exception_handler(kind_of_error, fails)
    app.add_middleware(RequestGuard, setup=setup, open_paths=frozenset(files))
    if setup.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(setup.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(RequestWatch, setup=setup, metrics=metrics)
    return app


def _of_routing(error: Exception) -> Exception:
    """An unknown path or a wrong method, in the words of this server."""
    if not isinstance(error, HTTPException):
        return error
    headers: Mapping[str, str] = error.headers or {}
    if error.status_code == 404:
        return unknown_path()
    if error.status_code == 405:
        allowed = headers.get("Allow", "another method")
        return HttpRefusal(405, f"this path takes {allowed}.", code="wrong_method", headers=headers)
    return HttpRefusal(error.status_code, f"{error.detail}.", headers=headers)


def _file(kind: str, content: bytes) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, media_type=kind, headers=dict(PAGE_HEADERS))

    return file

"""The application: routes, the request id on every response, and one error body for everything that fails."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Scope

from frontend.dashboard.board import Board
from frontend.errors import ApiError
from frontend.exporter import Exporter
from frontend.middleware import RequestIdMiddleware
from frontend.routes import cluster, completions, health, openapi, overview, page, requests, selection
from lifecycle import tracing
from lifecycle.errors import Fenced, StoreError
from lifecycle.model import ErrorType
from lifecycle.tracker import Tracker

log = logging.getLogger(__name__)


def _is_untraced(scope: Scope) -> bool:
    """Traced is what starts, cancels or reads a request; what only looks at the cluster comes every few seconds."""
    path: str = scope["path"]
    return not path.startswith("/v1/") or (scope["method"] == "GET" and not path.endswith("/stream"))


def create_app(tracker: Tracker) -> ASGIApp:
    app = FastAPI(
        openapi_url=None,  # it is described by hand: routes/openapi.py
        telemetry={
            "tracing": tracing.is_on(), "exclude": _is_untraced, "operation_spans": False,
            "metrics": False, "logs": False,
        },
    )  # fmt: skip
    app.state.tracker = tracker
    app.state.board = Board(tracker.store, lambda: tracker.id)
    app.state.exporter = Exporter(tracker.store, tracker.metrics)
    for routes in (completions, selection, requests, cluster, health, overview, page, openapi):
        app.include_router(routes.router)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return Response(error.body(), error.status, error.headers())

    @app.exception_handler(StoreError)
    async def store_error(request: Request, error: StoreError) -> Response:
        return await api_error(request, ApiError(ErrorType.UNAVAILABLE, error.message, code="redis_unavailable"))

    @app.exception_handler(Fenced)
    async def fenced(request: Request, error: Fenced) -> Response:
        return await api_error(request, ApiError(ErrorType.UNAVAILABLE, error.message, code="lease_lost"))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        kind = ErrorType.NOT_FOUND if error.status_code == 404 else ErrorType.VALIDATION
        message = f"{request.method} {request.url.path}: {error.detail}"
        refusal = ApiError(kind, message, status=error.status_code, code=None)
        return Response(refusal.body(), refusal.status, {**refusal.headers(), **(error.headers or {})})

    @app.exception_handler(ClientDisconnect)
    async def client_gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # before its body was whole: nothing was started

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Response:
        return await api_error(request, ApiError(ErrorType.INTERNAL, "An internal error occurred", retry=False))

    # Outermost, so that an internal error carries the id too.
    return RequestIdMiddleware(app)

"""The application: routes, the request id on every response, and one error body for everything that fails."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Scope

from frontend.access import Access, AccessMiddleware
from frontend.dashboard.board import Board
from frontend.errors import ApiError, redis_away
from frontend.exporter import Exporter
from frontend.middleware import RequestIdMiddleware
from frontend.routes import cluster, completions, health, openapi, overview, page, requests, selection, session
from lifecycle import tracing
from lifecycle.access import Keyring
from lifecycle.errors import Fenced, StoreError
from lifecycle.model import ErrorType
from lifecycle.tracker import Tracker

log = logging.getLogger(__name__)

ROUTERS = tuple(
    routes.router for routes in (completions, selection, requests, cluster, health, overview, session, page, openapi)
)


def _is_untraced(scope: Scope) -> bool:
    """Traced is what starts, cancels or reads a request; what only looks at the cluster comes every few seconds."""
    path: str = scope["path"]
    return not path.startswith("/v1/") or (scope["method"] == "GET" and not path.endswith("/stream"))


def create_app(tracker: Tracker, keyring: Keyring | None = None) -> ASGIApp:
    """Without a keyring everybody may call everything."""
    app = FastAPI(
        openapi_url=None,  # it is described by hand: routes/openapi.py
        telemetry={
            "tracing": tracing.is_on(), "exclude": _is_untraced, "operation_spans": False,
            "metrics": False, "logs": False,
        },
    )  # fmt: skip
    app.state.tracker = tracker
    app.state.access = Access(keyring, tracker.store) if keyring else None
    app.state.board = Board(tracker.store, lambda: tracker.id)
    app.state.exporter = Exporter(tracker.store, tracker.metrics)
    for router in ROUTERS:
        app.include_router(router)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return Response(error.body(), error.status, error.headers())

    @app.exception_handler(StoreError)
    async def store_error(request: Request, error: StoreError) -> Response:
        return await api_error(request, redis_away(error))

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

    guarded = AccessMiddleware(app, app.state.access) if app.state.access else app
    # Outermost, so that an internal error and a refusal carry the id too.
    return RequestIdMiddleware(guarded)

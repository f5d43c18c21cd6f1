"""The application: routes, the request id on every response, and one error body for everything that fails."""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from frontend.auth.api_keys import Keyring
from frontend.auth.policy import Access, AccessMiddleware
from frontend.dashboard.board import Board
from frontend.exporter import Exporter
from frontend.routes import bulk_cancel, cluster, completions, health, openapi, overview, page, requests, session
from frontend.transport.fast_path import FastPath
from frontend.transport.request_id import RequestIdMiddleware
from lifecycle.fastapi.exception_handlers import EXPECTED, answer
from lifecycle.telemetry import tracing
from lifecycle.tracking.tracker import Tracker

_PROXIES = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")  # uvicorn's own variable

ROUTERS = tuple(
    routes.router for routes in (completions, bulk_cancel, requests, cluster, health, overview, session, page, openapi)
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
            "tracing": tracing.is_on(),
            "exclude": _is_untraced,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
        },
    )
    app.state.tracker = tracker
    app.state.access = Access(keyring, tracker.store) if keyring else None
    app.state.board = Board(tracker.store, lambda: tracker.id)
    app.state.exporter = Exporter(tracker.store, tracker.metrics)
    for router in ROUTERS:
        app.include_router(router)

    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=_PROXIES)
    for kind in (*EXPECTED, Exception):
        app.add_exception_handler(kind, _failed)

    # A span for each call is FastAPI's to make.
    inside = app if tracing.is_on() else FastPath(app, completions.ENDPOINTS)
    guarded = AccessMiddleware(inside, app.state.access) if app.state.access else inside
    # Outermost, so that an internal error and a refusal carry the id too.
    return RequestIdMiddleware(guarded)


async def _failed(request: Request, failure: Exception) -> Response:
    return answer(request, failure)

"""Build the ASGI application of a frontend from its routes and middlewares."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.datastructures import State
from starlette.types import ASGIApp, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from frontend.auth.policy import AccessPolicy, AuthorizationMiddleware
from frontend.dashboard.dashboard_feed import DashboardFeed
from frontend.edge.client_shares import ClientShares, ClientSharesMiddleware
from frontend.edge.cors import Cors
from frontend.edge.own_site import OwnSite
from frontend.edge.refusals import Refusals
from frontend.edge.site_middleware import SiteMiddleware
from frontend.exporter import Exporter
from frontend.routes import bulk_cancel, calls, cluster, health, openapi, overview, page, requests, responses, session
from frontend.transport.error_responses import error_response
from frontend.transport.fast_path import FastPath
from frontend.transport.head_as_get import HeadAsGet
from frontend.transport.request_id import RequestIdMiddleware
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.fastapi.exception_handlers import EXPECTED_EXCEPTIONS
from lifecycle.telemetry import tracing
from lifecycle.tracking.tracker import Tracker

_PROXIES = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")  # uvicorn's own variable

ROUTERS = tuple(
    routes.router
    for routes in (calls, bulk_cancel, requests, responses, cluster, health, overview, session, page, openapi)
)


def _is_untraced(scope: Scope) -> bool:
    """Exclude calls that only observe the cluster: they come every few seconds.

    Traced are the calls that start, cancel or stream a request.
    """
    path: str = scope["path"]
    return not path.startswith("/v1/") or (scope["method"] == "GET" and not path.endswith("/stream"))


def create_app(
    tracker: Tracker, keyring: Keyring | None = None, refusals: Refusals | None = None, cors: Cors | None = None
) -> ASGIApp:
    """Return the application. Without a keyring every call is allowed to everybody.

    `refusals` counts the refused calls that reach the application, and `cors` answers for other origins; its server,
    which answers calls that do not reach it, may share them.
    """
    cors = cors or Cors(tracker.settings)
    app = FastAPI(
        openapi_url=None,  # routes/openapi.py serves a description that is written by hand
        redirect_slashes=False,
        telemetry={
            "tracing": tracing.is_on(),
            "exclude": _is_untraced,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
        },
    )
    app.state = cast(State, SimpleNamespace())  # Starlette's own raises and catches an error at each look-up
    app.state.tracker = tracker
    app.state.access_policy = AccessPolicy(keyring, tracker.store) if keyring else None
    app.state.client_shares = shares = ClientShares(keyring, tracker.settings)
    app.state.dashboard_feed = DashboardFeed(tracker.store, lambda: tracker.id)
    app.state.exporter = Exporter(tracker.store, tracker.metrics)
    for router in ROUTERS:
        app.include_router(router)

    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=_PROXIES)
    app.add_middleware(HeadAsGet)
    for kind in (*EXPECTED_EXCEPTIONS, Exception):
        app.add_exception_handler(kind, _handle_exception)

    # FastAPI makes the span of each call, so with tracing no call may bypass it.
    served = app if tracing.is_on() else FastPath(app, calls.ROUTES)
    policy = app.state.access_policy
    authorized = AuthorizationMiddleware(ClientSharesMiddleware(served, shares), policy) if policy else served
    own_site = OwnSite(tracker.settings, cors) if not (keyring or tracker.settings.allow_anonymous) else None
    guarded = SiteMiddleware(authorized, cors, own_site) if own_site or cors.is_on else authorized
    # Outermost, so that internal errors and refused calls carry the request id too.
    count = (refusals or Refusals(tracker.metrics)).count
    return RequestIdMiddleware(guarded, cors.response_headers, count, takes_ids=tracker.settings.request_id_header)


async def _handle_exception(request: Request, failure: Exception) -> Response:
    return error_response(request.scope, failure)

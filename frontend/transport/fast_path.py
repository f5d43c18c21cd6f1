"""Call the routes that start requests directly, and leave every other call to FastAPI.

FastAPI's layers around a route (five middlewares, routing, dependencies) cost as much as the route itself, and
more than a quarter of a frontend's share of a short request: see docs/performance.md.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from frontend.transport.error_responses import error_response
from lifecycle.fastapi.exception_handlers import EXPECTED_EXCEPTIONS

log = logging.getLogger(__name__)

Route = Callable[[Request], Awaitable[Response]]


class FastPath:
    """Serve POST calls with `routes`, by their exact path. FastAPI must have the same routes."""

    def __init__(self, app: FastAPI, routes: Mapping[str, Route]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive)
        try:
            response = await route(request)
        except Exception as failure:
            if not isinstance(failure, EXPECTED_EXCEPTIONS):
                log.exception("the call %s %s failed", scope["method"], scope["path"])
            response = error_response(scope, failure)
        await response(scope, receive, send)

"""Completions go straight to their endpoint; every other call goes through FastAPI.

What FastAPI has around an endpoint (five middlewares, routing, dependencies) costs as much as the endpoint itself, and
more than a quarter of a frontend's share of a short request: docs/performance.md.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from lifecycle.fastapi.exception_handlers import EXPECTED, answer

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


class FastPath:
    """An ASGI application. `endpoints`: those of POST by path, which FastAPI has as routes too."""

    def __init__(self, app: FastAPI, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except Exception as failure:
            if not isinstance(failure, EXPECTED):
                log.exception("a call failed")
            response = answer(request, failure)
        await response(scope, receive, send)

"""Answer HEAD where GET answers (RFC 9110, section 9.3.2), for load balancers and monitors that probe with it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Let the routes see a GET. uvicorn leaves out the body, because its own scope still has the HEAD.

    A route whose GET opens a stream asks `ClientConnection.is_head` and opens none.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

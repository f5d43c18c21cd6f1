"""Send responses to HTTP/1.0, whose clients do not know chunks: the end of the connection ends the body."""

from __future__ import annotations

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Unchunked:
    """Serve one call with the application so that its response is not chunked.

    The cycle checks the length of a body that is not chunked, so it is told of one that is never reached.
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        cycle.keep_alive = cycle.chunked_encoding = False
        cycle.expected_content_length = sys.maxsize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plain(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_plain)

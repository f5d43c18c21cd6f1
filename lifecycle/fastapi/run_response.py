"""Stream the events of a run to an HTTP client, under any ASGI server and behind any middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lifecycle.aio import tasks
from lifecycle.application.run import Resumed, Run
from lifecycle.encoding import encode_json
from lifecycle.fastapi.errors import error_object
from lifecycle.fastapi.json_events import JsonEventEncoder
from lifecycle.tokens.items import End, Tokens
from lifecycle.types import ErrorType, Status

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
_KEEPALIVE = b": keepalive\n\n"


class LineEncoder:
    """Encode events as lines of JSON (NDJSON), without ids."""

    keepalive = b""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def tokens(self, tokens: Tokens) -> bytes:
        """Return one line for each event."""
        return b"".join(encode_json(event) + b"\n" for event in tokens.events)

    def ending(self, end: End) -> bytes:
        """Return the error as the last line, if the request failed."""
        if end.status == Status.COMPLETED:
            return b""
        return error_object(ErrorType(end.error_type), end.message, self._request_id, end.detail) + b"\n"


class EventStreamEncoder:
    """Encode events as server-sent events with ids."""

    keepalive = _KEEPALIVE

    def __init__(self, request_id: str) -> None:
        self._encoder = JsonEventEncoder(request_id)

    def tokens(self, tokens: Tokens) -> bytes:
        """Return one server-sent event for each event."""
        return self._encoder.tokens(tokens.attempt, tokens.first, tokens.events)

    def ending(self, end: End) -> bytes:
        """Return the error, if the request failed, and `[DONE]`."""
        return self._encoder.ending(end)


def prefers_lines(accept: str) -> bool:
    """Return whether a call's Accept header asks for NDJSON."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return NDJSON in kinds and EVENT_STREAM not in kinds


class RunResponse(Response):
    """Stream a run, and disconnect from it when the client does.

    A client that reads nothing for SLOW_CONSUMER_SECS is disconnected. Servers that collect the whole answer (the test
    clients of Starlette and httpx) never report a disconnect before its end.
    """

    def __init__(
        self, run: Run | Resumed, *, lines: bool, slow_consumer_secs: float, headers: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the response, which closes the run. With `lines` it is NDJSON, else server-sent events."""
        self._run = run
        self._encoder = LineEncoder(run.id) if lines else EventStreamEncoder(run.id)
        self._slow_consumer_secs = slow_consumer_secs
        self.status_code = 200
        self.background = None
        self.init_headers(
            {
                "content-type": NDJSON if lines else f"{EVENT_STREAM}; charset=utf-8",
                "cache-control": "no-cache, no-transform",
                "x-accel-buffering": "no",
                "x-request-id": run.id,
                **(headers or {}),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send), name=f"response {self._run.id}")
        listening = asyncio.create_task(_wait_for_disconnect(receive), name=f"disconnect {self._run.id}")
        try:
            await asyncio.wait((writing, listening), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()  # raises what the server raised
        finally:
            try:
                await self._run.aclose()
            finally:
                await tasks.end((writing, listening))

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        encoder = self._encoder
        async for item in self._run._items():
            if isinstance(item, Tokens):
                data, more = encoder.tokens(item), True
            elif isinstance(item, End):
                data, more = encoder.ending(item), False
            else:
                data, more = encoder.keepalive, True
            if not data and more:
                continue
            try:
                async with asyncio.timeout(self._slow_consumer_secs):
                    await send({"type": "http.response.body", "body": data, "more_body": more})
            except TimeoutError:
                await self._run._fail_slow_consumer(
                    f"The client read nothing for {self._slow_consumer_secs:g} seconds, the limit for slow clients"
                )
                return  # without the last part, so that the server drops the connection


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""One call to a deployment, from its invocation to the last byte of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import httpx2

from lifecycle.aio import tasks
from tests.chaos.audit.history import Call, How, Operation, Seen, Token
from tests.sse import Stream


class Exchange:
    """Send the call on entering the block; within it, read `stream`, or take None for an answer without events.

    Nothing that the other side does raises an error: what it does is recorded. Leaving the block before the stream has
    ended is a disconnect. Afterwards `call` has what is recorded.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        request: httpx2.Request,
        *,
        clock: Callable[[], float],
        timeout_secs: float,
        record: Callable[[Call], None],
        **fields: Any,
    ) -> None:
        """`fields` are those of the Call that are known beforehand."""
        self.stream: Stream | None = None
        self._http = http
        self._request = request
        self._clock = clock
        self._timeout_secs = timeout_secs
        self._record = record
        self._fields = fields
        self._call: Call | None = None
        self._stack = AsyncExitStack()

    @property
    def call(self) -> Call:
        assert self._call is not None, "the exchange is not over"
        return self._call

    async def __aenter__(self) -> Self:
        self._fields["invoked_at"] = self._clock()
        try:
            await self._stack.enter_async_context(asyncio.timeout(self._timeout_secs))
            await self._open()
        except BaseException as failure:
            if not await self.__aexit__(type(failure), failure, failure.__traceback__):
                raise
        return self

    async def _open(self) -> None:
        response = await self._http.send(self._request, stream=True)
        self._stack.push_async_callback(response.aclose)
        self._fields |= {
            "code": response.status_code,
            "answered_at": self._clock(),
            "retry_after": "retry-after" in response.headers,
        }
        if response.status_code == 200 and self._fields.get("stream"):
            self.stream = Stream(response)
            return
        await response.aread()
        self._fields |= _body_of(self._fields["operation"], response)

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._call is not None:
            return False
        how = How.WHOLE if self.stream is None or self.stream.ended else How.LEFT
        try:
            await self._stack.__aexit__(kind, failure, traceback)  # ends with what the block or its closing raised
            if failure is not None:
                raise failure
        except (TimeoutError, httpx2.TimeoutException):
            tasks.check_cancelled()
            how = How.SILENT
        except (httpx2.TransportError, httpx2.StreamError):
            tasks.check_cancelled()
            how = How.BROKEN
        finally:
            if self.stream is not None:
                self._fields |= _read_from(self.stream)
            self._call = Call(**self._fields, completed_at=self._clock(), how=how)
            self._record(self._call)
        return True


def _read_from(stream: Stream) -> dict[str, Any]:
    tokens: list[Token] = []
    error = ""
    for event in stream.events:
        if event.id is not None:
            attempt, _, number = event.id.partition("-")
            tokens.append(Token(int(attempt), int(number), event.text))
        elif isinstance(event.data, dict) and "error" in event.data:
            error = _error_type(event.data["error"])
    done = bool(stream.events) and stream.events[-1].data == "[DONE]"
    return {"tokens": tuple(tokens), "done": done, "error": error}


def _body_of(operation: Operation, response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json() if response.content else {}
        if response.status_code >= 400:
            return {"error": _error_type(body["error"])}
        if operation is Operation.ADMIT:
            return {"text": str(body["choices"][0]["message"]["content"] or "")}
        if operation is Operation.INFLIGHT:
            return {"total": int(body["total"])}
        if operation in (Operation.STATUS, Operation.CANCEL):
            names = ("status", "error_type", "attempt", "finished_at", "created_at")
            return {"record": Seen(*(body[name] for name in names))}
    except (ValueError, LookupError, TypeError) as failure:
        return {"error": f"not a body of the API: {failure!r}"}
    return {}


def _error_type(error: dict[str, Any]) -> str:
    return str(error.get("error_type") or error.get("code") or error.get("type"))

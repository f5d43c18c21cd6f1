"""Make calls to a deployment, each recorded in a history."""

from __future__ import annotations

import time
from typing import Any

import httpx2

from tests.chaos.audit.asked import Asked
from tests.chaos.audit.exchange import Exchange
from tests.chaos.audit.history import Call, History, Operation
from tests.sse import chat


class Recorder:
    """`timeout_secs`: how long an answer, or a stream as a whole, may take."""

    def __init__(self, http: httpx2.AsyncClient, history: History, *, timeout_secs: float) -> None:
        self.history = history
        self._http = http
        self._timeout_secs = timeout_secs
        self._began_at = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self._began_at

    def admit(
        self, url: str, rid: str, asked: Asked, *, stream: bool = True, padding_bytes: int = 0, **headers: str
    ) -> Exchange:
        """Start a request: `X_On_Disconnect="continue"` gives the header X-On-Disconnect. `padding_bytes` make its body
        longer.
        """
        names = {name.replace("_", "-"): value for name, value in headers.items()} | {"X-Request-Id": rid}
        body = chat(asked.prompt, asked.model) | {"stream": stream}
        if padding_bytes:
            body["user"] = "x" * padding_bytes
        request = self._http.build_request("POST", url + "/v1/chat/completions", json=body, headers=names)
        return self._exchange(request, Operation.ADMIT, url, rid=rid, asked=asked, stream=stream)

    def resume(self, url: str, rid: str, after: str = "") -> Exchange:
        """Read a request's stream, from behind a position."""
        attempt, _, number = after.partition("-")
        headers = {"Last-Event-ID": after} if after else {}
        request = self._http.build_request("GET", f"{url}/v1/requests/{rid}/stream", headers=headers)
        place = (int(attempt), int(number)) if after else (0, 0)
        return self._exchange(request, Operation.RESUME, url, rid=rid, after=place, stream=True)

    async def unary(self, url: str, rid: str, asked: Asked) -> Call:
        """Start a request that is answered as a whole."""
        async with self.admit(url, rid, asked, stream=False) as exchange:
            pass
        return exchange.call

    async def cancel(self, url: str, rid: str, mode: str, wait_ms: int) -> Call:
        body = {"mode": mode, "wait_ms": wait_ms}
        request = self._http.build_request("POST", f"{url}/v1/requests/{rid}/cancel", json=body)
        return await self._call(request, Operation.CANCEL, url, rid=rid, mode=mode)

    async def status(self, url: str, rid: str) -> Call:
        request = self._http.build_request("GET", f"{url}/v1/requests/{rid}")
        return await self._call(request, Operation.STATUS, url, rid=rid)

    async def inflight(self, url: str) -> Call:
        request = self._http.build_request("GET", f"{url}/v1/inflight")
        return await self._call(request, Operation.INFLIGHT, url)

    async def _call(self, request: httpx2.Request, operation: Operation, url: str, **fields: Any) -> Call:
        async with self._exchange(request, operation, url, **fields) as exchange:
            pass
        return exchange.call

    def _exchange(self, request: httpx2.Request, operation: Operation, url: str, **fields: Any) -> Exchange:
        return Exchange(
            self._http,
            request,
            clock=self.now,
            timeout_secs=self._timeout_secs,
            record=self.history.calls.append,
            operation=operation,
            replica=url,
            **fields,
        )

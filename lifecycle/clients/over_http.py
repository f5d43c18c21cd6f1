"""Ask and command a cluster over the HTTP API of any of its frontends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2
import orjson

from lifecycle.clients.sse import read_events
from lifecycle.errors import (
    Conflict,
    InvalidValue,
    LifecycleError,
    NotFound,
    Overloaded,
    RequestFailed,
    Unavailable,
)
from lifecycle.records import Cancelled, Inflight, ModelQueue, Replica
from lifecycle.types import CancelMode, ErrorType, ReplicaAction, RequestRecord

_PAUSE_SECS = 0.2  # before a stream that broke is resumed; doubled each time up to the longest
_LONGEST_PAUSE_SECS = 2.0
_TIMEOUT_SECS = 10.0
_SILENCE_SECS = 60.0  # of a stream, which has comments at least; then it is resumed
_RESUMES = 10  # in a row without an event
_DONE = "[DONE]"
_OF_THE_STREAM = (ErrorType.FRONTEND_LOST, ErrorType.UNAVAILABLE, ErrorType.SLOW_CONSUMER)


class HttpBackend:
    """Call the API at one URL (`Backend`), with an API key if one is given."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """`url` is that of a frontend or of a load balancer before several, with or without a path before `/v1`.

        Its user and password, if any, are sent with each call and are in no error and no log line.
        """
        parsed = _parse(url)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.AsyncClient(
            base_url=parsed.copy_with(userinfo=b""),
            auth=(parsed.username, parsed.password) if parsed.userinfo else None,
            headers=headers,
            timeout=httpx2.Timeout(_TIMEOUT_SECS, pool=None),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def inflight(self, model: str) -> Inflight:
        """Count the inflight requests of one model, or of all for an empty name."""
        return Inflight.from_json(await self._call("GET", "/v1/inflight", {"model": model} if model else {}))

    async def page(self, filter: Mapping[str, str], limit: int, after: str) -> tuple[list[RequestRecord], bool]:
        """Return a page of records behind the request `after`, newest first, and whether there are more."""
        query = {name: value for name, value in {**filter, "after": after}.items() if value}
        body = await self._call("GET", "/v1/requests", {**query, "limit": str(limit)})
        return [RequestRecord.from_json(shown) for shown in body["data"]], body["has_more"]

    async def get(self, rid: str) -> RequestRecord:
        """Return a record. Raises NotFound."""
        return RequestRecord.from_json(await self._call("GET", f"/v1/requests/{rid}"))

    async def cancel(self, rid: str, mode: CancelMode, reason: str, wait_secs: float) -> RequestRecord:
        """Cancel a request and wait for its worker's confirmation, for at most `wait_secs` (30 s). Raises NotFound."""
        body: dict[str, Any] = {"mode": mode.value, "wait_ms": min(30_000, int(wait_secs * 1000))}
        if reason:
            body["reason"] = reason
        path, timeout_secs = f"/v1/requests/{rid}/cancel", _TIMEOUT_SECS + wait_secs
        return RequestRecord.from_json(await self._call("POST", path, body=body, timeout_secs=timeout_secs))

    async def cancel_many(
        self, selector: Mapping[str, Any], mode: CancelMode, reason: str, dry_run: bool, after: str
    ) -> Cancelled:
        """Cancel one page of the requests that match."""
        body = {**selector, "mode": mode.value, "dry_run": dry_run}
        if reason:
            body["reason"] = reason
        if after:
            body["after"] = after
        return Cancelled.from_json(await self._call("POST", "/v1/requests/cancel", body=body))

    async def replicas(self) -> list[Replica]:
        """Return the living replicas."""
        return [Replica.from_json(shown) for shown in (await self._call("GET", "/v1/replicas"))["data"]]

    async def instruct(self, replica_id: str, action: ReplicaAction) -> Replica:
        """Tell a replica to drain, to pause or to resume. Raises NotFound, InvalidValue, Conflict."""
        path = f"/v1/replicas/{quote(replica_id, safe='~')}/{action.value}"
        return Replica.from_json(await self._call("POST", path))

    async def queue(self) -> list[ModelQueue]:
        """Return the queues of models."""
        return [ModelQueue.from_json(shown) for shown in (await self._call("GET", "/v1/queue"))["data"]]

    async def events(self, rid: str, after: str | None) -> AsyncGenerator[tuple[str, Any]]:
        """Yield (at, event), live to the end. A connection that breaks is resumed. Raises NotFound, RequestFailed."""
        pause, broken = _PAUSE_SECS, 0
        while True:
            try:
                async with aclosing(self._read(rid, after)) as items:
                    async for at, event in items:
                        yield at, event
                        after, pause, broken = at, _PAUSE_SECS, 0
                return
            except (httpx2.TransportError, Unavailable, Overloaded) as failure:
                broken += 1
                if broken > _RESUMES:
                    raise Unavailable(f"the stream of {rid} broke and could not be resumed: {failure}") from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECS)

    async def _read(self, rid: str, after: str | None) -> AsyncGenerator[tuple[str, Any]]:
        headers = {"last-event-id": after} if after else {}
        path, timeout = f"/v1/requests/{rid}/stream?format=events", httpx2.Timeout(_TIMEOUT_SECS, read=_SILENCE_SECS)
        async with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.status_code == 204:  # the position is that of the last event
                await self._raise_unless_completed(rid)
                return
            if answer.status_code != 200:
                await answer.aread()
                raise _failure(answer)
            async for at, data in read_events(answer.aiter_text()):
                if data == _DONE:
                    return
                event = orjson.loads(data)
                if not at:
                    await self._raise(rid, ErrorType(event["error"]["error_type"]), event["error"]["message"])
                yield at, event
        raise httpx2.ReadError("the stream ended without [DONE]")

    async def _raise(self, rid: str, error_type: ErrorType, message: str) -> None:
        """Raise what ended the stream: Unavailable when only this stream has ended, and the request goes on."""
        if error_type in _OF_THE_STREAM and not (await self.get(rid)).status.terminal:
            raise Unavailable(message)
        raise RequestFailed(error_type, message, rid)

    async def _raise_unless_completed(self, rid: str) -> None:
        record = await self.get(rid)
        if record.error_type:
            raise RequestFailed(ErrorType(record.error_type), record.error_message or "", rid)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_secs: float = _TIMEOUT_SECS,
    ) -> Any:
        """Return the JSON of an answer. Raises Unavailable, NotFound, InvalidValue, Conflict or Overloaded."""
        content = None if body is None else orjson.dumps(body)
        headers = {} if content is None else {"content-type": "application/json"}
        try:
            answer = await self._http.request(
                method, path, params=dict(query or {}), content=content, headers=headers, timeout=timeout_secs
            )
        except httpx2.TransportError as failure:
            raise Unavailable(f"no answer from {self._http.base_url}: {failure or type(failure).__name__}") from None
        if answer.status_code >= 400:
            raise _failure(answer)
        return orjson.loads(answer.content)


def _parse(url: str) -> httpx2.URL:
    """Return the URL of a frontend without `/v1`. Raises InvalidValue, which does not show a password."""
    try:
        parsed = httpx2.URL(url.rstrip("/").removesuffix("/v1"))
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        shown = url.rpartition("@")[2]
        raise InvalidValue(f"the URL of {shown!r:.200} is malformed; write http://host:port or https://host")
    return parsed


def _failure(answer: httpx2.Response) -> LifecycleError:
    """Return the error that a refused call stands for."""
    param = None
    try:
        error = orjson.loads(answer.content)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"the answer has the status {answer.status_code}"
    status = answer.status_code
    if status in (429, 502, 503, 504):  # 502 and 504 are a load balancer's own
        after = answer.headers.get("retry-after", "")
        kind = Overloaded if status == 429 else Unavailable
        return kind(message, float(after) if after.isdigit() else None)
    if status == 400:
        return InvalidValue(message, param=param)
    by_status: dict[int, type[LifecycleError]] = {404: NotFound, 409: Conflict}
    return by_status.get(status, LifecycleError)(message)

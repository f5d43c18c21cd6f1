"""Forward requests to an OpenAI-compatible server, for example vLLM, SGLang, llama.cpp, Ollama or Dynamo."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from typing import Any

import httpx2
import orjson

from lifecycle.errors import LifecycleError, NotConnected, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.types import Event
from worker.engines.interruption import Interrupted, Interruption
from worker.engines.model_list import ModelList, parse_models
from worker.engines.response_body import ResponseBody
from worker.engines.served_endpoints import ServedEndpoints
from worker.engines.upstream import Upstream, keep_alive, make_client
from worker.engines.upstream_calls import UpstreamCall, call_of
from worker.engines.upstream_errors import (
    KEY_REFUSED,
    NOT_CONNECTED,
    UNAVAILABLE_STATUSES,
    error_message,
    response_error,
)
from worker.engines.upstream_load import UpstreamLoad

log = logging.getLogger(__name__)

_MODELS_TIMEOUT_SECS = 10.0
_MAX_ERROR_BYTES = 64 * 1024
_MAX_REQUEST_ID = 128
_OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "transfer-encoding",
        "x-request-id",
    }
)


class OpenAIEngine:
    """Forward each body to the upstream as it came, and yield what it streams.

    Only what asks for a stream and its usage is set; see `upstream_calls`. All requests share one client with one
    connection pool. When the context is stopped, or the generator is cancelled or closed, the upstream connection is
    closed at once, even before the response's headers: such servers abort then. There is no read timeout, because the
    worker and the frontend have their own.
    """

    accepts = True
    max_model_len: int | dict[str, int] | None = None  # as the upstream lists it

    def __init__(self, base_url: str, api_key: str = "", max_output_bytes: int = 64 * 1024 * 1024) -> None:
        """Use the server at `base_url`: `http://host:port/v1`, or `http://host:port`, to which `/v1` is added.

        `max_output_bytes` is the most that an answer which is no stream may have.

        Raise EngineLoadError when the URL, the key or the environment's proxies or certificates cannot be used.
        """
        self._upstream = Upstream(base_url, api_key)
        self._max_output_bytes = max_output_bytes
        self._headers = {
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **self._upstream.headers,
        }
        self._served = ServedEndpoints(self._upstream)
        self._load = UpstreamLoad(self._upstream)
        self._client: httpx2.AsyncClient | None = None

    @property
    def endpoints(self) -> Collection[str]:
        """Return the endpoints that the upstream serves, as far as it has told them; see ServedEndpoints."""
        return self._served.names

    async def startup(self) -> None:
        """Find out which endpoints the upstream serves. One that is away is asked when `health` has reached it."""
        await self._served.learn(self._open_client())

    async def aclose(self) -> None:
        """Close the connection pool. A later request opens a new one."""
        await self._served.aclose()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open_client(self) -> httpx2.AsyncClient:
        self._client = self._client or make_client()
        return self._client

    async def health(self) -> None:
        """Ask the upstream for its models. Raise Unavailable when it cannot be reached, or answers 502 or 503.

        Any other answer, also one that refuses the question, shows that it serves. After an outage it is asked for its
        endpoints again.
        """
        client = self._open_client()
        try:
            response, _ = await self._list_models(client)
        except httpx2.HTTPError as failure:
            self._served.forget()
            raise NotConnected(NOT_CONNECTED) from failure
        if response.status_code in UNAVAILABLE_STATUSES:
            self._served.forget()
            raise Unavailable(f"the upstream answers with status {response.status_code}")
        self._served.learn_later(client)

    async def waiting(self) -> int | None:
        """Return how many requests wait in the upstream, as its metrics tell; None when they do not."""
        return await self._load.waiting(self._open_client())

    async def models(self) -> list[str]:
        """Return the names of the models that the upstream lists. Raise LifecycleError when it lists none."""
        address, advice = self._upstream.address, "check that it runs, or pass --model"
        try:
            # Its own client: the worker does not close an engine that has not started.
            async with make_client() as client, asyncio.timeout(_MODELS_TIMEOUT_SECS):
                response, listed = await self._list_models(client)
        except (httpx2.HTTPError, TimeoutError) as failure:
            reason = self._upstream.scrub_credentials(str(failure) or type(failure).__name__)
            message = f"the models of the upstream {address} cannot be listed ({reason}); {advice}"
            raise LifecycleError(message) from failure
        if listed is None:
            raise LifecycleError(f"the upstream {address} lists no models (status {response.status_code}); {advice}")
        return listed.names

    async def _list_models(self, client: httpx2.AsyncClient) -> tuple[httpx2.Response, ModelList | None]:
        """Return the upstream's answer, with its list if it is one, and learn `max_model_len` from it."""
        url, headers = self._upstream.url("/models"), self._upstream.headers
        response = await client.get(url, headers=headers, extensions={"trace": keep_alive})
        listed = parse_models(response.content) if response.is_success else None
        if listed is not None:
            self.max_model_len = listed.max_model_len
        return response, listed

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        """Yield the upstream's events for `request`; see the parser of its endpoint.

        Raise EngineError, with the upstream's own message, status and error code, when it reports an error, or ends its
        stream before the answer is complete. Raise Unavailable when it cannot be reached, answers 502 or 503, or
        breaks the connection before its first event.
        """
        if context.is_stopped:
            return
        call = call_of(context.endpoint, request)
        parser = call.parser(request, context, self._upstream.scrub, self._max_output_bytes)
        try:
            with Interruption(context) as interruption:
                async with aclosing(await interruption.run(self._send(call, request, context))) as response:
                    await interruption.run(self._raise_for_failure(response, context))
                    async with aclosing(response.aiter_bytes()) as chunks:
                        body = ResponseBody(chunks, parser)
                        while not parser.ended:
                            for event in parser.feed(await interruption.run(body.next())):
                                yield event
                                if context.is_stopped:
                                    return
                        await interruption.run(body.exhaust())
        except Interrupted:
            return

    async def _send(self, call: UpstreamCall, request: dict[str, Any], context: EngineContext) -> httpx2.Response:
        """Return the upstream's response with its body unread. Raise Unavailable when there is none."""
        client = self._open_client()
        headers = {**_forwarded(context), **self._headers, "Accept": call.accept, **_identifying_headers(context)}
        sent = client.build_request(
            "POST",
            self._upstream.url(call.path, at_root=call.at_root),
            content=_encode(call.body(request)),
            headers=httpx2.Headers(headers, encoding="latin-1"),  # as the call's own headers came
            extensions={"trace": keep_alive},
        )
        try:
            return await client.send(sent, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as failure:
            self._log(failure, context)
            self._served.forget()
            raise NotConnected(NOT_CONNECTED) from failure
        except httpx2.HTTPError as failure:
            self._log(failure, context)
            raise Unavailable("the upstream closed the connection before it answered") from failure

    def _log(self, failure: Exception, context: EngineContext) -> None:
        """Log why there is no response, with the upstream's address, which clients must not see."""
        reason = self._upstream.scrub_credentials(str(failure) or type(failure).__name__)
        log.warning("request %s: no response from the upstream %s: %s", context.id, self._upstream.address, reason)

    async def _raise_for_failure(self, response: httpx2.Response, context: EngineContext) -> None:
        """Raise EngineError or Unavailable, with the upstream's message, unless the status says success."""
        if response.is_success:
            return
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ERROR_BYTES:
                    break
        except httpx2.HTTPError:
            pass  # the part that has arrived is reported
        status, retry_after = response.status_code, response.headers.get("retry-after")
        failure = response_error(status, bytes(body), retry_after, self._upstream.scrub)
        hidden = failure.message == KEY_REFUSED
        shown = self._upstream.scrub_credentials(error_message(bytes(body))) if hidden else ""
        log.warning("request %s: the upstream answered with status %d %s", context.id, status, shown)
        raise failure


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()  # integers beyond 64 bits and lone surrogates keep their value


def _forwarded(context: EngineContext) -> dict[str, str]:
    """Return the call's headers that are meant for the engine, without those that this engine sets itself."""
    return {name: value for name, value in context.headers.items() if name.lower() not in _OWN_HEADERS}


def _identifying_headers(context: EngineContext) -> dict[str, str]:
    """Return the headers by which the upstream's logs and traces identify this attempt."""
    headers = {"X-Request-Id": upstream_request_id(context.id, context.attempt)}
    return headers | ({"traceparent": context.traceparent} if context.traceparent else {})


def upstream_request_id(id: str, attempt: int) -> str:
    """Return an id for the upstream, 128 characters at most: unique for each attempt, recognisable in its log."""
    suffix = f".{attempt}"
    if len(id) + len(suffix) > _MAX_REQUEST_ID:
        # Two long ids could be equal once they are cut off, so a digest of the whole id is added.
        suffix = f".{hashlib.blake2s(id.encode(), digest_size=16).hexdigest()}{suffix}"
    return id[: _MAX_REQUEST_ID - len(suffix)] + suffix

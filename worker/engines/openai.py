"""The openai engine: stands in front of any OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, Dynamo, …)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import orjson

from lifecycle.errors import STREAM_ENDED
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import EngineError, EngineLoadError
from worker.engines.answer import Answer, error_message
from worker.engines.interruption import Interrupted, Interruption

_CONNECT_TIMEOUT_SECS = 10.0
_KEEPALIVE_SECS = 2.0  # well below what servers use (5 s and more): who reuses later races with their closing
_END_OF_BODY_SECS = 0.1
_MAX_ERROR_BYTES = 64 * 1024
_MAX_REQUEST_ID = 128


class OpenAIEngine:
    """Passes the body on and yields what the upstream streams; one client with one pool for all requests.

    When the context is stopped, or the generator is cancelled or closed, the upstream connection is closed at once,
    even before its headers came: this is how such servers abort. There is no read timeout: the tracker has its own.
    Raises EngineError with the upstream's own words.
    """

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """`base_url` includes the `/v1`, but a bare `http://host:port` will do. Raises EngineLoadError."""
        self._base_url = _checked(base_url)
        self._headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client: httpx2.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the pool. A later request opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        if context.is_stopped:
            return
        answer = Answer(context)
        try:
            with Interruption(context) as interruption:
                async with aclosing(await interruption.run(self._send(request, context))) as response:
                    await interruption.run(_raise_for_failure(response))
                    async with aclosing(response.aiter_bytes()) as chunks:
                        while not answer.ended:
                            for text in answer.feed(await interruption.run(_next(chunks, answer))):
                                yield text
                                if context.is_stopped:
                                    return
                        await interruption.run(_exhaust(chunks))
        except Interrupted:
            return

    async def _send(self, request: dict[str, Any], context: EngineContext) -> httpx2.Response:
        """The upstream's response, its body still unread."""
        url = self._base_url + ("/chat/completions" if "messages" in request else "/completions")
        options = {**(request.get("stream_options") or {}), "include_usage": True}
        client = self._ensure_client()
        sent = client.build_request(
            "POST",
            url,
            content=orjson.dumps({**request, "stream": True, "stream_options": options}),
            headers={**self._headers, **_named(context)},
        )
        try:
            return await client.send(sent, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as failure:
            raise EngineError(f"cannot connect to the upstream {url}: {_words(failure)}") from failure
        except httpx2.HTTPError as failure:
            raise EngineError(f"no answer from the upstream {url}: {_words(failure)}") from failure

    def _ensure_client(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_SECS),
                # The worker's concurrency is the limit; a second one here would only queue in silence.
                limits=httpx2.Limits(
                    max_connections=None, max_keepalive_connections=256, keepalive_expiry=_KEEPALIVE_SECS
                ),
            )
        return self._client


def _named(context: EngineContext) -> dict[str, str]:
    """How the upstream's logs and traces find this attempt."""
    named = {"X-Request-Id": upstream_request_id(context.id, context.attempt)}
    return named | ({"traceparent": context.traceparent} if context.traceparent else {})


def upstream_request_id(id: str, attempt: int) -> str:
    """An id for the upstream: valid there, another one for each attempt, and recognisable in its log."""
    suffix = f".{attempt}"
    if len(id) + len(suffix) > _MAX_REQUEST_ID:
        # Cutting alone could make two ids equal.
        suffix = f".{hashlib.blake2s(id.encode(), digest_size=16).hexdigest()}{suffix}"
    return id[: _MAX_REQUEST_ID - len(suffix)] + suffix


async def _next(chunks: AsyncIterator[bytes], answer: Answer) -> bytes | None:
    """What came next from the socket, None at the end. A torn connection is an end, too."""
    try:
        async for chunk in chunks:
            return chunk
    except httpx2.HTTPError as failure:
        if not answer.finished:
            raise EngineError(STREAM_ENDED) from failure
    return None


async def _exhaust(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of the body, so that the pool can reuse the connection. It is there already or it never comes."""
    try:
        async with asyncio.timeout(_END_OF_BODY_SECS):
            async for _ in chunks:
                pass
    except (TimeoutError, httpx2.HTTPError):
        pass  # the answer is complete; only the connection is lost


async def _raise_for_failure(response: httpx2.Response) -> None:
    """Raises EngineError unless the response is a stream."""
    streams = not response.headers.get("content-type", "").startswith("application/json")
    if response.is_success and streams:
        return
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_ERROR_BYTES:
                break
    except httpx2.HTTPError:
        pass  # what did arrive will have to do
    kind = "without streaming" if response.is_success else str(response.status_code)
    raise EngineError(error_message(bytes(body)) or f"the upstream answered {kind}")


def _checked(base_url: str) -> str:
    if not base_url:
        raise EngineLoadError(
            "the openai engine needs an upstream: give --upstream URL or set LIFECYCLE_OPENAI_BASE_URL"
        )
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise EngineLoadError(f"LIFECYCLE_OPENAI_BASE_URL={base_url!r}: use http://host:port/v1 (or https)")
    return base_url.rstrip("/") + ("/v1" if url.path == "/" else "")


def _words(failure: Exception) -> str:
    return str(failure) or type(failure).__name__

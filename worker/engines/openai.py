"""Forward requests to an OpenAI-compatible server, for example vLLM, SGLang, llama.cpp, Ollama or Dynamo."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import orjson

from lifecycle.errors import STREAM_ENDED, EngineError
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import EngineLoadError
from worker.engines.completion_parser import CompletionParser, error_message
from worker.engines.interruption import Interrupted, Interruption

_CONNECT_TIMEOUT_SECS = 10.0
_KEEPALIVE_SECS = 2.0  # servers close idle connections after 5 s or more; reusing one later would race with that
_END_OF_BODY_SECS = 0.1
_MAX_ERROR_BYTES = 64 * 1024
_MAX_REQUEST_ID = 128


class OpenAIEngine:
    """Forward each body to the upstream and yield the texts that it streams.

    All requests share one client with one connection pool. When the context is stopped, or the generator is cancelled
    or closed, the upstream connection is closed at once, even before the response's headers: such servers abort then.
    There is no read timeout, because the worker and the frontend have their own.
    """

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """Use the server at `base_url`: `http://host:port/v1`, or `http://host:port`, to which `/v1` is added.

        Raise EngineLoadError when `base_url` is empty or not an HTTP URL.
        """
        self._base_url = _validated(base_url)
        self._headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client: httpx2.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connection pool. A later request opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        """Yield the upstream's tokens for `request`.

        Raise EngineError, with the upstream's own message if there is one, when it cannot be reached, reports an error,
        or ends its stream before the answer is complete.
        """
        if context.is_stopped:
            return
        parser = CompletionParser(context)
        try:
            with Interruption(context) as interruption:
                async with aclosing(await interruption.run(self._send(request, context))) as response:
                    await interruption.run(_raise_for_failure(response))
                    async with aclosing(response.aiter_bytes()) as chunks:
                        while not parser.ended:
                            for text in parser.feed(await interruption.run(_next(chunks, parser))):
                                yield text
                                if context.is_stopped:
                                    return
                        await interruption.run(_exhaust(chunks))
        except Interrupted:
            return

    async def _send(self, request: dict[str, Any], context: EngineContext) -> httpx2.Response:
        """Return the upstream's response with its body unread. Raise EngineError when there is none."""
        url = self._base_url + ("/chat/completions" if "messages" in request else "/completions")
        options = {**(request.get("stream_options") or {}), "include_usage": True}
        client = self._ensure_client()
        sent = client.build_request(
            "POST",
            url,
            content=orjson.dumps({**request, "stream": True, "stream_options": options}),
            headers={**self._headers, **_identifying_headers(context)},
        )
        try:
            return await client.send(sent, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as failure:
            raise EngineError(
                f"cannot connect to the upstream {url}: {_failure_text(failure)}; check that it runs"
            ) from failure
        except httpx2.HTTPError as failure:
            raise EngineError(f"no answer from the upstream {url}: {_failure_text(failure)}; see its log") from failure

    def _ensure_client(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_SECS),
                # The worker's concurrency is the limit; a second limit here would queue requests unseen.
                limits=httpx2.Limits(
                    max_connections=None, max_keepalive_connections=256, keepalive_expiry=_KEEPALIVE_SECS
                ),
            )
        return self._client


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


async def _next(chunks: AsyncIterator[bytes], parser: CompletionParser) -> bytes | None:
    """Return the next chunk of the body, or None at its end.

    Raise EngineError when the connection breaks before the answer is complete; later that is an end like any other.
    """
    try:
        async for chunk in chunks:
            return chunk
    except httpx2.HTTPError as failure:
        if not parser.finished:
            raise EngineError(STREAM_ENDED) from failure
    return None


async def _exhaust(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of the body, so that the pool can reuse the connection. Give up after _END_OF_BODY_SECS."""
    try:
        async with asyncio.timeout(_END_OF_BODY_SECS):
            async for _ in chunks:
                pass
    except (TimeoutError, httpx2.HTTPError):
        pass  # the answer is complete; only the connection is lost


async def _raise_for_failure(response: httpx2.Response) -> None:
    """Raise EngineError, with the upstream's message, unless the response is a successful stream."""
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
        pass  # the part that has arrived is reported
    if message := error_message(bytes(body)):
        raise EngineError(message)
    if response.is_success:
        raise EngineError("the upstream answered without a stream; check that it supports stream=true")
    raise EngineError(f"the upstream answered with status {response.status_code} and no message; see its log")


def _validated(base_url: str) -> str:
    """Return `base_url` without a trailing slash and with a path. Raise EngineLoadError when it is no HTTP URL."""
    if not base_url:
        raise EngineLoadError("the openai engine has no upstream: pass --upstream URL or set LIFECYCLE_OPENAI_BASE_URL")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise EngineLoadError(
            f"LIFECYCLE_OPENAI_BASE_URL={base_url!r} is not an HTTP URL: use http://host:port/v1 or https://…"
        )
    return base_url.rstrip("/") + ("/v1" if url.path == "/" else "")


def _failure_text(failure: Exception) -> str:
    return str(failure) or type(failure).__name__

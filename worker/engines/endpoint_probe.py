"""Ask an upstream whether it serves one endpoint, without starting any work there.

The question is an empty JSON object, which no endpoint can do anything with. A server that does not have the path
answers 404, 405 or 501, and one that has it complains about the body. Frameworks that answer 405 to a GET, because the
path is for POST, are not sent the object.
"""

from __future__ import annotations

import asyncio
import re
from enum import Enum, auto

import httpx2
import orjson

from worker.engines.upstream import Upstream, keep_alive
from worker.engines.upstream_errors import error_message

PROBE_SECS = 3.0
_MAX_ANSWER_BYTES = 64 * 1024
_ABSENT = (404, 405, 501)
_LATER = (401, 403, 408, 429, 502, 503, 504)
_REFUSED = re.compile(r"does not support|not supported|unsupported|unexpected endpoint", re.I)


class Verdict(Enum):
    """Say what an upstream's answer means for an endpoint."""

    SERVED = auto()
    NOT_SERVED = auto()
    UNCLEAR = auto()
    """The answer is none that a server of this API gives to an empty object."""
    LATER = auto()
    """The upstream cannot be reached, or does not answer the question now, or not with this key."""


async def probe(client: httpx2.AsyncClient, upstream: Upstream, url: str) -> Verdict:
    """Return what the upstream says about the endpoint at `url`, after 6 seconds at most."""
    try:
        async with asyncio.timeout(2 * PROBE_SECS):
            if (await _ask(client, upstream, "GET", url))[0] == 405:
                return Verdict.SERVED
            return judge(*await _ask(client, upstream, "POST", url))
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        return Verdict.LATER
    except (httpx2.HTTPError, TimeoutError):
        return Verdict.UNCLEAR


def judge(status: int, body: bytes) -> Verdict:
    """Return what the answer to an empty object says."""
    message = error_message(body)
    if status in _LATER:
        return Verdict.LATER
    if _REFUSED.search(message):
        return Verdict.NOT_SERVED
    if status in _ABSENT:
        # Ollama answers 404 for a model that it does not have.
        return Verdict.SERVED if status == 404 and "model" in message.lower() else Verdict.NOT_SERVED
    if status < 400 or (status >= 500 and not _is_object(body)):
        return Verdict.UNCLEAR
    return Verdict.SERVED


async def _ask(client: httpx2.AsyncClient, upstream: Upstream, method: str, url: str) -> tuple[int, bytes]:
    """Return the status and the beginning of the body. The rest is not read: the upstream then stops."""
    headers = {"Accept": "application/json", **upstream.headers}
    content = None
    if method == "POST":
        headers["Content-Type"], content = "application/json", b"{}"
    sent = client.build_request(
        method, url, content=content, headers=headers, timeout=PROBE_SECS, extensions={"trace": keep_alive}
    )
    response = await client.send(sent, stream=True)
    body = bytearray()
    try:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    break
    finally:
        await response.aclose()
    return response.status_code, bytes(body)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False

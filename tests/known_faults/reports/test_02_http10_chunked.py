"""A response to an HTTP/1.0 call must not be chunked, because such clients read the sizes of the chunks as text.

Today streams and replays are sent in chunks whatever the client's version is. Expected: the plain body, whose end is
the end of the connection.
The same as edge/c_http.
Source: Kludex/uvicorn#1360; RFC 9112, section 6.1.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from tests.connection import connected
from tests.known_faults.reports.kit import Site, chat

chunked_today = pytest.mark.xfail(strict=True, reason="02: the response to an HTTP/1.0 call is sent in chunks")


async def ask(site: Site, path: str, body: dict[str, Any] | None = None) -> tuple[bytes, bytes]:
    """Make a call with HTTP/1.0. Return the head of the response in lower case, and its body."""
    content = json.dumps(body).encode() if body else b""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    async with connected(site.port) as connection:
        await connection.send(head.encode() + content)
        head_received, _, body_received = (await connection.read_to_end()).partition(b"\r\n\r\n")
    return head_received.lower(), body_received


@chunked_today
async def test_a_stream_is_not_chunked(site: Site) -> None:
    head, body = await ask(site, "/v1/chat/completions", chat("echo", stream=True))
    assert b"transfer-encoding" not in head
    assert body.startswith((b"id:", b"data:"))
    assert body.rstrip().endswith(b"data: [DONE]")


async def test_a_unary_answer_is_not_chunked(site: Site) -> None:
    head, body = await ask(site, "/v1/chat/completions", chat("echo"))
    assert b"transfer-encoding" not in head
    assert json.loads(body)["choices"][0]["message"]["content"] == "hello world"


@chunked_today
async def test_a_replay_is_not_chunked(site: Site) -> None:
    rid = f"http10-{secrets.token_hex(4)}"
    assert (await site.ask("echo", headers={"X-Request-Id": rid})).status_code == 200
    head, body = await ask(site, f"/v1/requests/{rid}/stream")
    assert b"transfer-encoding" not in head
    assert body.startswith((b"id:", b"data:"))

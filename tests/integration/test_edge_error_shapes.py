"""Calls that never reach the application are refused in the form of their path, and pages can read the refusal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.conftest import MakeSettings
from tests.connection import connected
from tests.edge import EdgeServer, edge_server

ORIGIN = "https://app.example"
LONG = "a" * 70_000
CHAT, MESSAGES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"

REFUSED = {
    "400": (400, "X-Broken: a\r\n bad\x00\r\n\r\n"),
    "408 of a head": (408, "X-Not-Wh"),  # behind a complete field
    "408 of a body": (408, "Content-Length: 10\r\n\r\n"),
    "431": (431, f"X-Long: {LONG}\r\n\r\n"),
}


@pytest.fixture
async def edge(make_settings: MakeSettings) -> AsyncIterator[EdgeServer]:
    async with edge_server(
        make_settings(head_timeout_secs=0.3, body_timeout_secs=0.3, cors_origins=ORIGIN, queue_without_workers=True)
    ) as started:
        yield started


async def refused(edge: EdgeServer, call: str) -> tuple[int, dict[str, str], dict[str, object]]:
    """Return the status, the headers and the body of the refusal of a call."""
    async with connected(edge.port) as connection:
        await connection.send(call.encode("latin-1"))
        received = await connection.read_to_end()
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return int(first.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("path", [CHAT, MESSAGES, COUNT, f"{MESSAGES}/?beta=true", "/v1/embeddings"])
async def test_the_body_is_that_of_the_path(edge: EdgeServer, case: str, path: str) -> None:
    expected, rest = REFUSED[case]
    call = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {ORIGIN}\r\n{rest}"
    status, headers, body = await refused(edge, call)
    assert status == expected
    assert headers["access-control-allow-origin"] == ORIGIN
    if path.startswith(MESSAGES):
        assert body["type"] == "error"
        assert headers["request-id"] == headers["x-request-id"] == body["request_id"]
    else:
        assert set(body) == {"error"}
        assert "request-id" not in headers


async def test_the_url_of_an_endpoint_that_is_too_long(edge: EdgeServer) -> None:
    status, headers, body = await refused(edge, f"POST {MESSAGES}?x={LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, body["type"]) == (414, "error")
    assert "access-control-allow-origin" not in headers


async def test_another_origin_is_not_named(edge: EdgeServer) -> None:
    call = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nX-Long: {LONG}\r\n\r\n"
    status, headers, _ = await refused(edge, call)
    assert status == 431
    assert "access-control-allow-origin" not in headers


async def test_a_call_behind_another_one_has_its_own_form(edge: EdgeServer) -> None:
    """Refuse what is malformed before it has a path as a call of no path, and not of the earlier one."""
    async with connected(edge.port) as connection:
        await connection.send(f"GET {MESSAGES} HTTP/1.1\r\nHost: localhost\r\nOrigin: {ORIGIN}\r\n\r\n".encode())
        first = await connection.read_until(b'"type":"error"')
        await connection.send(b"\x00\x00garbage\r\n\r\n")
        second = await connection.read_to_end()
    assert b"405" in first.split(b"\r\n")[0]
    assert second.rpartition(b"HTTP/1.1 ")[2].startswith(b"400")
    assert set(json.loads(second.rpartition(b"\r\n\r\n")[2])) == {"error"}

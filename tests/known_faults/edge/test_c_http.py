"""Raw HTTP: smuggling, odd framing, Expect, pipelining, odd bodies. Each call must get one plain answer.

Its findings on `Upgrade: h2c` and on HTTP/1.0 are the same as the reports 01 and 02.
The endless and slow heads of c_headers_dos (with its sketch of a remedy, fix_heads) are the same as the report 08, and
the foreign sites of c_anon_csrf the same as the report 05.
"""

from __future__ import annotations

import json

import pytest

from tests.connection import Connection, connected
from tests.known_faults.reports.kit import Site, chat

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
STREAM = json.dumps(chat("echo", "one two", stream=True)).encode()


def sized(body: bytes, head: bytes = POST) -> bytes:
    """Return a call with its length."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def nested(depth: int) -> bytes:
    return json.dumps(chat("echo"))[:-1].encode() + b',"a":' + b"[" * depth + b"]" * depth + b"}"


def saying(raw: bytes) -> bytes:
    """Return a body whose message is these bytes."""
    return b'{"model":"echo","messages":[{"role":"user","content":"%b"}]}' % raw


async def status(connection: Connection, within_secs: float = 3.0) -> int:
    """Return the status of the first response on the connection."""
    head = await connection.read_until(b"\r\n\r\n", within_secs=within_secs)
    return int(head.split()[1])


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(
            POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", id="length and chunks"
        ),
        pytest.param(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", id="two lengths"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="an unknown encoding"),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="a space before the colon"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=\n\r\nabcde\r\n0\r\n\r\n", id="a line feed in an extension"
        ),
        pytest.param(POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", id="a folded field"),
        pytest.param(LIVE + b"X-Request-Id: a\x00b\r\n\r\n", id="NUL in a field"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="the preface of HTTP/2"),
        pytest.param(sized(b"\x1f\x8b" + b"0" * 18, POST + b"Content-Encoding: gzip\r\n"), id="a compressed body"),
        pytest.param(sized(nested(100_000)), id="100,000 levels of JSON"),
        pytest.param(sized(nested(102)), id="102 levels of JSON"),
        pytest.param(sized(saying(b"\xff\xfe")), id="no UTF-8"),
        pytest.param(sized(saying(b"\\ud800")), id="half a surrogate pair"),
    ],
)
async def test_what_is_malformed_is_refused(site: Site, call: bytes) -> None:
    async with connected(site.port) as connection:
        await connection.send(call)
        assert await status(connection) == 400
    assert (await site.http.get(site.url + "/live")).status_code == 200


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        pytest.param(LIVE.replace(b"\r\n", b"\n") + b"\n", (200, 400), id="bare line feeds"),
        pytest.param(
            b"GET http://localhost/live HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, 400), id="an absolute URL"
        ),
        pytest.param(
            LIVE
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            + b"Sec-WebSocket-Version: 13\r\n\r\n",
            (200, 400, 403, 426),
            id="an offer of WebSocket",
        ),
        pytest.param(
            LIVE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", (200,), id="an offer of h2c without a body"
        ),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, 204, 400, 404, 405), id="OPTIONS *"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", (400, 404, 405, 421), id="CONNECT"),
    ],
)
async def test_what_is_unusual_gets_a_plain_answer(site: Site, call: bytes, allowed: tuple[int, ...]) -> None:
    async with connected(site.port) as connection:
        await connection.send(call)
        assert await status(connection) in allowed
        assert connection.received.count(b"HTTP/1.1 ") == 1


async def test_a_line_end_in_a_path_makes_no_field(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(b"GET /v1/requests/%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await status(connection) in (400, 404)
        assert b"set-cookie" not in connection.received.partition(b"\r\n\r\n")[0].lower()


async def test_a_stream_behind_expect_is_asked_for_and_served(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(STREAM))
        assert await status(connection) == 100
        await connection.send(STREAM)
        received = await connection.read_until(b"data: [DONE]")
    assert b"HTTP/1.1 200 " in received


async def test_too_large_a_body_behind_expect_is_refused_before_it_is_sent(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert await status(connection) == 413


async def test_pipelined_streams_are_served_one_after_another(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(sized(STREAM) * 3)
        received = await connection.read_until(b"data: [DONE]", count=3)
    assert received.count(b"HTTP/1.1 200 ") == 3


async def test_a_number_of_three_million_digits_is_answered_soon(site: Site) -> None:
    body = json.dumps(chat("echo"))[:-1].encode() + b',"x":' + b"9" * 3_000_000 + b"}"
    async with connected(site.port) as connection:
        await connection.send(sized(body))
        assert await status(connection, within_secs=5.0) in (200, 400)

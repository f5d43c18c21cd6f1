"""Smuggling, odd framing, Expect, pipelining, offers to upgrade, HTTP/1.0: each call gets one plain answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.connection import Connection, connected
from tests.shared_cluster import borrowed, shared_cluster
from tests.sse import chat

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
END_OF_ANSWER = b"}}"  # of the usage and the whole
STREAM = json.dumps(chat("one two", stream=True)).encode()


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url, namespace=f"raw-{secrets.token_hex(4)}", heartbeat_secs=0.5, lease_secs=4.0, sweep_secs=0.5
    )
    with shared_cluster(running(settings, tmp_path_factory.mktemp("raw"))) as cluster:
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    """One frontend, whose event loop is a real process's, and an echo worker."""
    async with borrowed(shared) as own:
        yield own


def port_of(cluster: Cluster) -> int:
    return int(cluster.frontends[0].url.rpartition(":")[2])


def sized(body: bytes, head: bytes = POST) -> bytes:
    """Return a call with its length."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def nested(depth: int) -> bytes:
    return json.dumps(chat("hello world", stream=False))[:-1].encode() + b',"a":' + b"[" * depth + b"]" * depth + b"}"


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
async def test_what_is_malformed_is_refused(cluster: Cluster, call: bytes) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(call)
        assert await status(connection) == 400
    assert (await cluster.http.get(cluster.frontends[0].url + "/live")).status_code == 200


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
async def test_what_is_unusual_gets_a_plain_answer(cluster: Cluster, call: bytes, allowed: tuple[int, ...]) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(call)
        assert await status(connection) in allowed
        assert connection.received.count(b"HTTP/1.1 ") == 1


async def test_a_line_end_in_a_path_makes_no_field(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(b"GET /v1/requests/%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await status(connection) in (400, 404)
        assert b"set-cookie" not in connection.received.partition(b"\r\n\r\n")[0].lower()


async def test_a_stream_behind_expect_is_asked_for_and_served(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(STREAM))
        assert await status(connection) == 100
        await connection.send(STREAM)
        received = await connection.read_until(b"data: [DONE]")
    assert b"HTTP/1.1 200 " in received


async def test_too_large_a_body_behind_expect_is_refused_before_it_is_sent(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert await status(connection) == 413


async def test_pipelined_streams_are_served_one_after_another(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(sized(STREAM) * 3)
        received = await connection.read_until(b"data: [DONE]", count=3)
    assert received.count(b"HTTP/1.1 200 ") == 3


async def test_a_pipelined_call_keeps_its_headers(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(b"".join(LIVE + b"X-Request-Id: pipelined-%d\r\n\r\n" % number for number in range(3)))
        received = (await connection.read_until(b"HTTP/1.1 200 ", count=3)) + await connection.read_until(b"}")
    assert [b"pipelined-%d" % number in received for number in range(3)] == [True] * 3


async def test_a_number_of_three_million_digits_is_answered_soon(cluster: Cluster) -> None:
    body = json.dumps(chat("hello world", stream=False))[:-1].encode() + b',"x":' + b"9" * 3_000_000 + b"}"
    async with connected(port_of(cluster)) as connection:
        await connection.send(sized(body))
        assert await status(connection, within_secs=5.0) in (200, 400)


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
UNARY = json.dumps(chat("hello world", stream=False)).encode()
WITH_LENGTH = POST + OFFER + b"Content-Length: %d\r\n\r\n" % len(UNARY)
CHUNKED = POST + OFFER + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(UNARY), UNARY)


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([WITH_LENGTH + UNARY], id="length, one segment"),
        pytest.param([WITH_LENGTH, UNARY], id="length, two segments"),
        pytest.param([WITH_LENGTH[:70], WITH_LENGTH[70:] + UNARY[:9], UNARY[9:]], id="length, three segments"),
        pytest.param([CHUNKED + CHUNKS], id="chunked, one segment"),
        pytest.param([CHUNKED, CHUNKS], id="chunked, two segments"),
    ],
)
async def test_an_offer_of_h2c_is_ignored_and_the_body_read(cluster: Cluster, segments: list[bytes]) -> None:
    async with connected(port_of(cluster)) as connection:
        for segment in segments:
            await connection.send(segment)
            await connection.taken()
        answer = await connection.read_until(END_OF_ANSWER)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"hello world" in answer
        await connection.send(LIVE + b"\r\n")
        await connection.read_until(b"HTTP/1.1 200 ", count=2)


async def test_pipelined_offers_are_served_one_after_another(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send((WITH_LENGTH + UNARY) * 3)
        received = await connection.read_until(END_OF_ANSWER, count=3)
    assert received.count(b"HTTP/1.1 200 ") == 3


async def test_an_offer_with_close_closes(cluster: Cluster) -> None:
    async with connected(port_of(cluster)) as connection:
        await connection.send(LIVE + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert b"connection: close" in await connection.read_to_end()


async def ask_old(
    cluster: Cluster, path: str, body: dict[str, Any] | None = None, method: str = "GET"
) -> tuple[bytes, bytes]:
    """Make a call with HTTP/1.0. Return the head of the response in lower case, and its body."""
    content = json.dumps(body).encode() if body else b""
    head = f"{'POST' if body else method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    async with connected(port_of(cluster)) as connection:
        await connection.send(head.encode() + content)
        head_received, _, body_received = (await connection.read_to_end()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head_received.lower()
    assert b"connection: close" in head_received.lower()
    return head_received.lower(), body_received


async def test_a_stream_to_http_1_0_is_not_chunked(cluster: Cluster) -> None:
    head, body = await ask_old(cluster, "/v1/chat/completions", chat("one two", stream=True))
    assert b"content-length" not in head
    assert body.startswith((b"id:", b"data:"))
    assert body.rstrip().endswith(b"data: [DONE]")


async def test_a_unary_answer_to_http_1_0_is_not_chunked(cluster: Cluster) -> None:
    _, body = await ask_old(cluster, "/v1/chat/completions", chat("hello world", stream=False))
    assert json.loads(body)["choices"][0]["message"]["content"] == "hello world"


async def test_a_replay_to_http_1_0_is_not_chunked(cluster: Cluster) -> None:
    rid = f"http10-{secrets.token_hex(4)}"
    call = cluster.frontends[0].url + "/v1/chat/completions"
    assert (await cluster.http.post(call, json=chat("hi"), headers={"X-Request-Id": rid})).status_code == 200
    _, body = await ask_old(cluster, f"/v1/requests/{rid}/stream")
    assert body.startswith((b"id:", b"data:"))


@pytest.mark.parametrize("path", ["/live", "/nowhere", "/metrics", "/"])
async def test_other_answers_to_http_1_0_have_their_length(cluster: Cluster, path: str) -> None:
    head, body = await ask_old(cluster, path)
    assert f"content-length: {len(body)}".encode() in head
    head_only, nothing = await ask_old(cluster, path, method="HEAD")
    assert nothing == b""
    assert head_only.split()[1] == head.split()[1]

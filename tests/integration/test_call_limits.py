"""The head of a call is bounded in bytes and time, its body in time, and an idle connection in time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from tests.conftest import MakeSettings
from tests.connection import connected
from tests.edge import EdgeServer, edge_server
from tests.waiting import wait_until

GET = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
UNKNOWN = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n"
LIMIT = 65_536
MEGABYTE = b"a" * 1_000_000
HEAD_SECS, BODY_SECS = 0.3, 0.5


@pytest.fixture
async def edge(make_settings: MakeSettings) -> AsyncIterator[EdgeServer]:
    async with edge_server(make_settings()) as started:
        yield started


@pytest.fixture
async def quick(make_settings: MakeSettings) -> AsyncIterator[EdgeServer]:
    settings = make_settings(head_timeout_secs=HEAD_SECS, body_timeout_secs=BODY_SECS, queue_without_workers=True)
    async with edge_server(settings) as started:
        yield started


def head_of(size: int) -> bytes:
    """Return a head whose URL and fields count so many bytes."""
    fields = ((b"Host", b"localhost"), (b"X-Long", b""))
    counted = len(b"/live") + sum(len(name) + len(value) + len(b": \r\n") for name, value in fields)
    return GET + b"X-Long: " + b"a" * (size - counted) + b"\r\n\r\n"


def refusal(received: bytes) -> tuple[int, str]:
    """Return the status and the code of a refusal, which closes its connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: req-" in head
    assert b"\r\nconnection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(head_of(LIMIT + 1), (431, "head_too_large"), id="a head"),
        pytest.param(GET + b"X: y\r\n" * 12_000 + b"\r\n", (431, "head_too_large"), id="many fields"),
        pytest.param(
            b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (414, "url_too_long"), id="a URL"
        ),
        pytest.param(b"GET /" + b"a" * 9 * LIMIT, (414, "url_too_long"), id="half a URL"),
        pytest.param(b"a" * 9 * LIMIT, (400, None), id="half a method"),
    ],
)
async def test_what_is_beyond_64_kib_is_refused(edge: EdgeServer, call: bytes, expected: tuple[int, str]) -> None:
    async with connected(edge.port) as connection:
        await connection.send(call)
        assert refusal(await connection.read_to_end()) == expected


@pytest.mark.parametrize("segment_bytes", [LIMIT * 2, 30_000])
async def test_a_head_of_64_kib_is_served_and_another_is_not_counted_to_it(
    edge: EdgeServer, segment_bytes: int
) -> None:
    calls = head_of(LIMIT) * 3
    async with connected(edge.port) as connection:
        for start in range(0, len(calls), segment_bytes):
            await connection.send(calls[start : start + segment_bytes])
        await connection.read_until(b"HTTP/1.1 200 OK", count=3)
        await connection.send(head_of(LIMIT + 1))
        received = await connection.read_to_end()
    assert received.count(b"HTTP/1.1 431 ") == 1


async def test_calls_before_malformed_ones_are_answered(edge: EdgeServer) -> None:
    async with connected(edge.port) as connection:
        await connection.send((GET + b"\r\n") * 3 + b"GET\r\n\r\n")
        received = await connection.read_to_end()
    assert received.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_a_head_of_many_megabytes_is_not_taken(edge: EdgeServer, offer: bytes) -> None:
    async with connected(edge.port) as connection:
        try:
            await connection.send(GET + offer)
            for number in range(16):
                await connection.send(b"X-%d: " % number + MEGABYTE + b"\r\n")
        except OSError:
            return  # refused before it was complete
        assert refusal(await connection.read_to_end()) == (431, "head_too_large")


async def test_trailers_of_many_megabytes_are_not_taken(edge: EdgeServer) -> None:
    async with connected(edge.port) as connection:
        try:
            await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n")
            for number in range(16):
                await connection.send(b"X-%d: " % number + MEGABYTE + b"\r\n")
        except OSError:
            return
        assert refusal(await connection.read_to_end()) == (431, "head_too_large")


UNFINISHED = {
    "nothing": (b"", (408, "call_timeout")),
    "empty lines": (b"\r\n\r\n", (408, "call_timeout")),
    "half a head": (GET, (408, "call_timeout")),
    "half a head behind a call": (GET + b"\r\n" + GET, (408, "call_timeout")),
    "half a body": (POST + b"Content-Length: 99\r\n\r\n{", (408, "call_timeout")),
    "half a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{", (408, "call_timeout")),
    "half a body that nobody reads": (UNKNOWN + b"Content-Length: 99\r\n\r\n{", None),
}


async def test_a_connection_that_does_not_send_its_call_is_closed(quick: EdgeServer) -> None:
    async def outcome(sent: bytes) -> tuple[int, str] | None:
        async with connected(quick.port) as connection:
            await connection.send(sent)
            received = await connection.read_to_end(within_secs=5.0)
        last = received[received.rindex(b"HTTP/1.1 ") :]
        return refusal(last) if last.startswith(b"HTTP/1.1 408") else None

    outcomes = await asyncio.gather(*(outcome(sent) for sent, _ in UNFINISHED.values()))
    assert dict(zip(UNFINISHED, outcomes, strict=True)) == {
        name: expected for name, (_, expected) in UNFINISHED.items()
    }
    started = quick.tracker.metrics.registry.get_sample_value("lifecycle_requests_started_total")
    assert not started, "no request was started"


async def test_empty_lines_do_not_keep_a_connection(quick: EdgeServer) -> None:
    async with connected(quick.port) as connection:

        async def closed() -> bool:
            try:
                await connection.send(b"\r\n")
            except OSError:
                return True
            return quick.server.server_state.connections == set()

        await wait_until(closed, what="a connection that is closed")


async def test_a_body_has_more_time_the_more_of_it_arrives(make_settings: MakeSettings) -> None:
    """Two mebibytes have 32 seconds more."""
    async with edge_server(make_settings(body_timeout_secs=0.2)) as edge, connected(edge.port) as connection:
        size = 2 * 1024 * 1024
        await connection.send(POST + b"Content-Length: %d\r\n\r\n" % (size + 1) + b" " * size)
        await connection.taken()
        (serving,) = edge.server.server_state.connections
        assert not serving.is_overdue(30.0)  # type: ignore[union-attr]
        assert serving.is_overdue(33.0)  # type: ignore[union-attr]
        await connection.send(b"{")
        assert (await connection.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_half_a_head_behind_a_stream_does_not_end_the_stream(quick: EdgeServer) -> None:
    """The time of a head begins when the response before it has ended."""
    stream = b"GET /v1/overview HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connected(quick.port) as connection:
        await connection.send(stream + GET)
        await connection.read_until(b"data: ", count=3, within_secs=10.0)
        assert b" 408 " not in connection.received
        assert not connection.closed


async def test_a_call_behind_an_early_answer_is_served(edge: EdgeServer) -> None:
    """A call is refused before its body has arrived; the rest of the body is read and not taken for a call."""
    async with connected(edge.port) as connection:
        await connection.send(UNKNOWN + b"Content-Length: 200000\r\n\r\n" + b"GET " * 25_000)
        await connection.read_until(b"HTTP/1.1 404 ")
        await connection.send(b"GET " * 25_000 + GET + b"\r\n")
        await connection.read_until(b"HTTP/1.1 200 OK")


async def test_a_broken_rest_of_a_call_that_is_answered_gets_no_second_answer(edge: EdgeServer) -> None:
    async with connected(edge.port) as connection:
        await connection.send(UNKNOWN + b"Transfer-Encoding: chunked\r\n\r\n")
        await connection.read_until(b"HTTP/1.1 404 ")
        await connection.send(b"no chunk\r\n")
        assert (await connection.read_to_end()).count(b"HTTP/1.1 ") == 1


async def test_each_head_has_its_own_time(make_settings: MakeSettings) -> None:
    """The segments end within heads, so that the connection waits for one all the time."""
    call = GET + b"\r\n"
    async with edge_server(make_settings(head_timeout_secs=1.0)) as edge, connected(edge.port) as connection:
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        await connection.send(call[:20])
        while loop.time() - began < 1.5:
            number += 1
            await connection.send(call[20:] + call[:20])
            await connection.read_until(b"HTTP/1.1 200 OK", count=number)
        assert not connection.closed


async def test_a_refusal_does_not_wait_for_a_client_that_does_not_close(edge: EdgeServer) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(client, b"GET\r\n\r\n")
        await wait_until(lambda: not edge.server.server_state.connections, what="a connection that is closed")


async def test_an_idle_connection_has_no_limit_of_a_head(quick: EdgeServer) -> None:
    async with connected(quick.port) as connection:
        await connection.send(GET + b"\r\n")
        await connection.read_until(b"HTTP/1.1 200 OK")
        async with connected(quick.port) as silent:
            await silent.read_to_end()  # as long as a head may take
        await connection.send(GET + b"\r\n")
        await connection.read_until(b"HTTP/1.1 200 OK", count=2)

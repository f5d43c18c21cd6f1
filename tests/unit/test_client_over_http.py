"""A client over HTTP before a server that answers as a frontend or a load balancer may, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

import lifecycle


def stream(*events: object, ended: bool = True) -> tuple[int, bytes]:
    """Return a frontend's answer with these events of the attempt 1, and [DONE] if the stream has ended."""
    wire = b"".join(b"id: 1-%d\ndata: %b\n\n" % (at, orjson.dumps(event)) for at, event in enumerate(events, 1))
    return 200, wire + (b"data: [DONE]\n\n" if ended else b"")


@asynccontextmanager
async def answering(*answers: tuple[int, bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Provide the address of a server that gives these answers in turn, and the heads of the calls it got."""
    left, heads = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        status, body = left.pop(0)
        head = f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(30):
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
async def test_an_event_may_contain_any_separator_of_lines(separator: str) -> None:
    text = f"one{separator}two"
    async with answering(stream(text)) as (address, _), lifecycle.AsyncClient(f"http://{address}") as client:
        assert [event async for event in client.stream("r")] == [text]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_stream_goes_on_behind_a_refusal_for_now(status: int) -> None:
    refusal = (status, b"<h1>not now</h1>")
    async with (
        answering(refusal, stream("one", ended=False), refusal, stream("one", "two")) as (address, heads),
        lifecycle.AsyncClient(f"http://{address}") as client,
    ):
        events = client.events("r")
        assert await anext(events) == ("1-1", "one")
        assert await anext(events) == ("1-1", "one")  # the server does not look at the position
        assert [item async for item in events] == [("1-2", "two")]
    assert [b"last-event-id: 1-1" in head for head in heads] == [False, False, True, True]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, lifecycle.InvalidValue),
        (404, lifecycle.NotFound),
        (409, lifecycle.Conflict),
        (429, lifecycle.Overloaded),
        (500, lifecycle.LifecycleError),
        (502, lifecycle.Unavailable),
        (503, lifecycle.Unavailable),
        (504, lifecycle.Unavailable),
    ],
)
async def test_a_refused_call_raises_the_error_of_its_status(
    status: int, error: type[lifecycle.LifecycleError]
) -> None:
    async with answering((status, b"")) as (address, _), lifecycle.AsyncClient(f"http://{address}") as client:
        with pytest.raises(lifecycle.LifecycleError, match=str(status)) as raised:
            await client.get("r")
    assert type(raised.value) is error


async def test_the_credentials_of_a_url_are_sent_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with answering((200, b'{"object": "list", "data": []}')) as (address, heads):
        async with lifecycle.AsyncClient(f"http://me:se%40cret@{address}/v1/") as client:
            assert await client.replicas() == []
        async with lifecycle.AsyncClient("http://me:se%40cret@127.0.0.1:1") as client:
            with pytest.raises(lifecycle.Unavailable, match=r"127\.0\.0\.1:1") as raised:
                await client.replicas()
    assert heads[0].startswith(b"GET /v1/replicas ")
    assert b"authorization: Basic " + base64.b64encode(b"me:se@cret") in heads[0].replace(
        b"Authorization", b"authorization"
    )
    assert f"http://{address}/v1/replicas" in caplog.text
    assert "cret" not in caplog.text + str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "me:secret@h:8000",
        "ftp://me:secret@h",
        "http://me:secret@h:x",
        "http://me:sec/ret@h",
        "http://",
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(lifecycle.InvalidValue, match="write http://host:port") as raised:
        lifecycle.AsyncClient(url)
    assert "sec" not in str(raised.value)
    assert url.rpartition("@")[2] in str(raised.value)
    assert raised.value.__context__ is None

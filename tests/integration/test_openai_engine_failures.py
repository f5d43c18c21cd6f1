"""The openai engine in front of an upstream that fails: each failure is reported in one message."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.errors import STREAM_ENDED, Unavailable
from lifecycle.execution.engine import aclose
from tests.upstream import (
    DONE,
    Exchange,
    Serve,
    chunk,
    failing,
    failure,
    playing,
    within_bound,
)
from worker.engines.completion_parser import NO_CHOICES
from worker.engines.openai import OpenAIEngine
from worker.engines.sse import MAX_EVENT_BYTES

NO_STATUS_MESSAGE = "the upstream answered with status {} and no message; see its log"
NO_STREAM_MESSAGE = "the upstream reported an error without a message; see its log"
NOT_JSON = "the upstream sent an event that is not JSON; check that its API is OpenAI-compatible"
NOT_A_CHUNK = "the upstream sent an event that is not a completion chunk; check that its API is OpenAI-compatible"


@pytest.mark.parametrize(
    ("status", "kind", "body", "message"),
    [
        ("404 Not Found", "application/json", '{"error":{"message":"no model m"}}', "no model m"),
        ("400 Bad Request", "application/json", '{"detail":"nope"}', "nope"),
        ("500 Oops", "text/plain", "gone fishing", "gone fishing"),
        ("500 Oops", "text/html", "<html>gone fishing</html>", NO_STATUS_MESSAGE.format(500)),
        ("500 Internal Server Error", "text/plain", "", NO_STATUS_MESSAGE.format(500)),
        ("307 Temporary Redirect", "text/plain", "", NO_STATUS_MESSAGE.format(307)),
        ("200 OK", "application/json", '{"error":{"message":"not really ok"}}', "not really ok"),
        ("200 OK", "application/json", '{"choices":[]}', NO_CHOICES),
    ],
)
async def test_an_error_answer_speaks_for_itself(serve: Serve, status: str, kind: str, body: str, message: str) -> None:
    _, engine = await serve(playing(*([body] if body else []), status=status, kind=kind))
    assert await failure(engine) == ([], message)


async def test_an_endless_error_is_read_in_part(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(status="500 Oops", kind="text/plain")
        while True:
            await exchange.send("x" * 4096)

    upstream, engine = await serve(script)
    _, message = await failure(engine)
    assert set(message) == {"x"}
    assert len(message) <= 1000
    await within_bound(upstream.client_left)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('data: {"error":{"message":"out of memory","code":500}}\n\n', "out of memory"),
        ('data: {"object":"error","message":"old shape"}\n\n', "old shape"),
        ('event: error\ndata: {"message":"named"}\n\n', "named"),
        ("event: error\n: only a comment\n\n", "only a comment"),
        ("event: error\n\n", NO_STREAM_MESSAGE),
        ("data: {nonsense\n\n", NOT_JSON),
        ("data: [1]\n\n", NOT_A_CHUNK),
        ('data: {"choices":[1]}\n\n', NOT_A_CHUNK),
    ],
)
async def test_an_error_in_the_stream_fails_it(serve: Serve, frame: str, message: str) -> None:
    _, engine = await serve(playing(chunk("a"), frame, chunk("never"), DONE))
    assert await failure(engine) == (["a"], message)


@pytest.mark.parametrize("finish", [True, False], ids=["end of body", "torn connection"])
@pytest.mark.parametrize("half", ["", 'data: {"choices":[{"del'])
async def test_a_stream_that_ends_too_early_fails(serve: Serve, finish: bool, half: str) -> None:
    _, engine = await serve(playing(chunk("a"), *([half] if half else []), finish=finish))
    assert await failure(engine) == (["a"], STREAM_ENDED)


async def test_an_event_without_end_fails(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send("data: " + "x" * 65536)

    upstream, engine = await serve(script)
    assert await failure(engine) == ([], f"the upstream sent an event of more than {MAX_EVENT_BYTES} bytes, the limit")
    await within_bound(upstream.client_left)


async def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    engine = OpenAIEngine(f"http://bob:hunter2@127.0.0.1:{port}/v1")
    said, raised = await failing(engine)
    assert said == []
    assert isinstance(raised, Unavailable)
    assert raised.message == "cannot connect to the upstream"
    assert f"127.0.0.1:{port}" in caplog.text
    assert "hunter2" not in caplog.text
    await aclose(engine)


async def test_an_upstream_that_hangs_up_before_it_answers(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.writer.close()

    _, engine = await serve(script)
    said, raised = await failing(engine)
    assert said == []
    assert isinstance(raised, Unavailable)
    assert raised.message == "the upstream closed the connection before it answered"

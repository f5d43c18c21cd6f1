"""An answer that grows past LIFECYCLE_MAX_OUTPUT_BYTES ends with an error, and its engine is ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.aio import tasks
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.execution.threaded import as_async
from lifecycle.store.results import Start
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import Tokens
from lifecycle.tokens.writer import TokenWriter
from lifecycle.types import ErrorDetail, Event
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings, MakeStore
from tests.engines import bulky_token
from tests.sse import Stream, chat, error_of, post, resume, text_of
from tests.unit.world import World
from tests.upstream import Exchange, Serve, chunk, within_bound
from tests.waiting import wait_until
from worker.engines.openai import OpenAIEngine

LIMIT = 10_000
MESSAGE = f"The answer grew past {LIMIT} bytes, the limit; ask for a shorter one"
RunEngine = Callable[..., Awaitable[World]]


@pytest.fixture
async def run_engine(make_settings: MakeSettings, make_store: MakeStore) -> RunEngine:
    async def run(engine: Engine, emitted: Sequence[Event] = (), body: bytes = b"{}") -> World:
        """Run one attempt behind the `emitted` events to its end."""
        world = World(make_store(make_settings(lease_secs=60.0, max_output_bytes=LIMIT)))
        await world.open()
        await world.admit()
        start = (await world.take()).start
        assert isinstance(start, Start)
        writer = TokenWriter(world.store, ["w0"])
        flushing = asyncio.create_task(writer.run())
        try:
            async with asyncio.timeout(10):
                settings = world.store.settings
                start = start._replace(body=body)
                await Attempt("r", start, engine, writer, settings, emitted, lambda: None).run()
        finally:
            await tasks.end([flushing])
        return world

    return run


async def written(world: World) -> list[Event]:
    """Check that the request has failed because of its size, and return the events in its stream."""
    record = await world.record()
    assert (record.status, record.error_type, record.error_message) == ("failed", "overload", MESSAGE)
    assert record.error_detail == ErrorDetail(500, "output_too_large")
    events: list[Event] = []
    after, exhausted = "0-0", False
    while not exhausted:
        page = await read_history(world.store, "r", after)
        events += [event for item in page.items if isinstance(item, Tokens) for event in item.events]
        after, exhausted = page.next_id, page.exhausted
    assert len(events) == record.stream_length
    return events


def structured(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"reasoning": text}}]}


@pytest.mark.parametrize(
    ("event", "fit"),
    [
        ("x" * 998, 10),
        ("é" * 499, 10),
        (structured("x" * 946), 10),
        ("", LIMIT // 2),
        ("x" * (LIMIT - 2), 1),
        ("x" * (LIMIT - 1), 0),
        (structured("x" * LIMIT), 0),
    ],
    ids=["text", "UTF-8", "object", "empty", "exact", "long text", "long object"],
)
@pytest.mark.parametrize("pause", [True, False], ids=["awaits", "never awaits"])
async def test_events_are_counted_in_bytes(run_engine: RunEngine, event: Event, fit: int, pause: bool) -> None:
    ended: list[int] = []

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        try:
            for number in itertools.count(1):
                if pause and number % 10 == 0:
                    await asyncio.sleep(0)
                yield event
        finally:
            ended.append(number)

    world = await run_engine(engine)
    assert await written(world) == [event] * fit
    assert ended == [fit + 1]


async def test_the_events_of_earlier_attempts_count(run_engine: RunEngine) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        while True:
            yield "x" * 998

    world = await run_engine(engine, emitted=["x" * 5998, structured("x" * 946)])
    assert await written(world) == ["x" * 998] * 3


async def test_what_comes_beside_the_events_is_bounded_too(run_engine: RunEngine) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        context.finish_reason = "y" * 1_000_000
        context.usage = {"completion_tokens": 7, "details": "x" * 1_000_000}
        yield "a"

    record = await (await run_engine(engine)).record()
    assert (record.status, record.output_tokens, record.usage) == ("completed", 7, {"completion_tokens": 7})
    assert record.finish_reason == "y" * 4096


async def test_an_engine_in_a_thread_is_ended_too(run_engine: RunEngine) -> None:
    ended: list[bool] = []

    def generate(request: dict[str, Any], context: EngineContext) -> Any:
        try:
            while True:
                yield "x" * 998
        finally:
            ended.append(True)

    generate.run_in_thread = True  # type: ignore[attr-defined]
    world = await run_engine(as_async(generate))
    assert await written(world) == ["x" * 998] * 10
    assert ended == [True]


async def test_the_upstream_connection_is_closed(run_engine: RunEngine, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send(chunk("x" * 998))

    upstream, engine = await serve(script)
    world = await run_engine(engine, body=b'{"messages":[]}')
    assert await written(world) == ["x" * 998] * 10
    await within_bound(upstream.client_left)


async def test_an_answer_of_an_upstream_that_does_not_stream_is_not_collected_beyond_the_limit(
    run_engine: RunEngine, serve: Serve
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(kind="application/json")
        await exchange.send('{"choices":[{"index":0,"message":{"content":"')
        while True:
            await exchange.send("x" * 1000)

    upstream, _ = await serve(script)
    engine = OpenAIEngine(upstream.url, max_output_bytes=LIMIT)
    world = await run_engine(engine, body=b'{"messages":[]}')
    record = await world.record()
    assert (record.status, record.error_type, record.stream_length) == ("failed", "overload", 0)
    assert record.error_message == f"the upstream's answer has more than {LIMIT} bytes, the limit"
    assert record.error_detail == ErrorDetail(500, "output_too_large")
    await within_bound(upstream.client_left)
    await engine.aclose()


@asynccontextmanager
async def _cluster(
    make_settings: MakeSettings, directory: Path, engine: str, **settings: Any
) -> AsyncIterator[Cluster]:
    made = make_settings(lease_secs=2.0, queue_without_workers=True, **settings)
    async with running(made, directory, workers=0) as cluster:
        await cluster.worker("m", engine)
        yield cluster


def _checked(stream: Stream, limit: int) -> str:
    """Check that the stream ends with the error of a large answer, and return its text."""
    error = error_of(stream.events)
    assert error is not None
    assert error.pop("request_id")
    assert error == {
        "message": f"The answer grew past {limit} bytes, the limit; ask for a shorter one",
        "type": "output_too_large",
        "code": 500,
        "param": None,
        "error_type": "overload",
    }
    return text_of(stream.events)


async def test_both_forms_of_the_answer_say_so(make_settings: MakeSettings, tmp_path: Path) -> None:
    body = chat("1000 998", "m")
    text = "".join(bulky_token(number, 998) for number in range(10))
    async with _cluster(make_settings, tmp_path, "tests.engines:bulky", max_output_bytes=LIMIT) as cluster:
        (frontend,) = cluster.frontends
        async with post(cluster.http, frontend.url, body, X_Request_Id="r1") as stream:
            await stream.read()
        assert _checked(stream, LIMIT) == text
        async with resume(cluster.http, frontend.url, "r1") as again:
            await again.read()
        assert _checked(again, LIMIT) == text
        record = await cluster.record("r1")
        assert (record["status"], record["error_type"], record["output_tokens"]) == ("failed", "overload", 10)

        answer = await cluster.http.post(frontend.url + "/v1/chat/completions", json=body | {"stream": False})
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        error = answer.json()["error"]
        assert (error["message"], error["type"], error["error_type"]) == (MESSAGE, "output_too_large", "overload")
        assert "retry-after" not in answer.headers
        assert await cluster.metric("lifecycle_requests_total", model="m", error_type="overload") == 2
        assert await cluster.inflight() == 0


async def test_an_answer_is_limited_over_all_its_attempts(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Each token is its number and a blank; one more would exceed the limit."""
    limit, texts, size = 1500, [], 0
    for number in itertools.count():
        size += len(f"{number} ") + 2
        if size > limit:
            break
        texts.append(f"{number} ")
    async with _cluster(make_settings, tmp_path, "tests.engines:resumed", max_output_bytes=limit) as cluster:
        (frontend,), (worker,) = cluster.frontends, cluster.workers
        async with post(cluster.http, frontend.url, chat("100000 0.002", "m"), X_Request_Id="r1") as stream:
            await stream.read_tokens(100)
            await worker.kill()
            await cluster.worker("m", "tests.engines:resumed")
            async with asyncio.timeout(30):
                await stream.read()
        assert _checked(stream, limit) == "".join(texts)
        assert [event.id for event in stream.events if event.id][-1] == f"2-{len(texts)}"
        await wait_until(lambda: _ended(cluster, "r1"))
        assert (await cluster.record("r1"))["attempt"] == 2


async def _ended(cluster: Cluster, rid: str) -> bool:
    return bool((await cluster.record(rid))["status"] == "failed")

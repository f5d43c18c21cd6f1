"""One attempt at a request: the events that it writes, and the outcome that it reports to Redis."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lifecycle import EngineError, Unavailable
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.store.results import Ended, Outcome, Refusal, Start
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import Tokens
from lifecycle.tokens.writer import TokenSink, TokenWriter
from lifecycle.types import ErrorDetail, Status
from tests.conftest import MakeSettings, MakeStore
from tests.unit.world import World

BOUND_SECS = 10.0
PROMPT = "a secret prompt"


class Journal(TokenSink):
    """Keep the outcomes that are reported through it."""

    outcomes: list[Outcome]

    async def finish(self, outcome: Outcome, retry_for_secs: float) -> Ended:
        self.outcomes.append(outcome)
        return await super().finish(outcome, retry_for_secs)


class JournalWriter(TokenWriter):
    """Open sinks that keep their outcomes."""

    def open(self, rid: str, start: Start, on_refused: Callable[[Refusal], None]) -> TokenSink:
        sink = Journal(self, rid, start, on_refused)
        self.outcomes: list[Outcome] = []
        sink.outcomes = self.outcomes
        return sink


class Bench:
    """Run engines for the world's request `r` without a worker's queue."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.body = b"{}"

    async def run(self, engine: Engine) -> Outcome:
        """Run one attempt to its end and return the outcome that it reported."""
        [outcome] = await self.outcomes(engine)
        return outcome

    async def outcomes(self, engine: Engine) -> list[Outcome]:
        """Run one attempt to its end and return what it reported."""
        await self.world.admit()
        start = (await self.world.take()).start
        assert isinstance(start, Start)
        store = self.world.store
        writer = JournalWriter(store, ["w0"])
        flushing = asyncio.create_task(writer.run())
        try:
            async with asyncio.timeout(BOUND_SECS):
                attempt = Attempt(
                    "r", start._replace(body=self.body), engine, writer, store.settings, [], lambda _: None
                )
                await attempt.run()
        finally:
            flushing.cancel()
            await asyncio.wait((flushing,))
        return writer.outcomes

    async def events(self) -> list[Any]:
        page = await read_history(self.world.store, "r", "0-0")
        return [event for item in page.items if isinstance(item, Tokens) for event in item.events]


@pytest.fixture
async def bench(make_settings: MakeSettings, make_store: MakeStore) -> Bench:
    world = World(make_store(make_settings(lease_secs=60.0)))
    await world.open()
    return Bench(world)


CALL = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c"}]}}]}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 2}}


async def test_texts_and_chunks_are_written_as_they_come(bench: Bench) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str | dict[str, Any]]:
        yield ROLE
        yield "hi"
        yield ""
        yield CALL
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        yield {"choices": [], "usage": USAGE}

    outcome = await bench.run(engine)
    assert (outcome.status, outcome.finish_reason) == ("completed", "tool_calls")
    assert (outcome.usage, outcome.content_events) == (USAGE, 2)
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    assert await bench.events() == [ROLE, "hi", "", CALL, finish]


@pytest.mark.parametrize(
    ("usage", "input_tokens", "reported"),
    [
        (None, None, None),
        (None, 5, {"prompt_tokens": 5}),
        (USAGE, 5, USAGE),
        ({"completion_tokens": 2}, 5, {"completion_tokens": 2, "prompt_tokens": 5}),
        ({"prompt_tokens": "many", "completion_tokens": 2}, None, {"completion_tokens": 2}),
        ({"prompt_tokens": object()}, None, None),
    ],
)
async def test_the_outcome_carries_the_usage(bench: Bench, usage: Any, input_tokens: Any, reported: Any) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        context.usage, context.input_tokens = usage, input_tokens
        yield "x"

    assert (await bench.run(engine)).usage == reported


@pytest.mark.parametrize(
    ("failure", "error_type", "detail"),
    [
        (
            EngineError("too long", 400, "invalid_request_error", "context_length_exceeded", "messages"),
            "validation",
            ErrorDetail(400, "invalid_request_error", "context_length_exceeded", "messages"),
        ),
        (EngineError("busy", 429, retry_after_secs=7), "overload", ErrorDetail(429, retry_after_secs=7)),
        (EngineError("odd", 418), "internal", ErrorDetail(418)),
        (Unavailable("loading", 9), "unavailable", ErrorDetail(503, retry_after_secs=9)),
        (RuntimeError("no luck"), "internal", None),
    ],
)
async def test_an_error_keeps_its_parts(bench: Bench, failure: Exception, error_type: str, detail: Any) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"
        raise failure

    outcome = await bench.run(engine)
    assert (outcome.status, outcome.error_type, outcome.message) == ("failed", error_type, str(failure))
    assert outcome.detail == detail
    assert (await bench.world.record()).error_type == error_type


async def test_a_traceback_is_logged_without_the_prompt(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield PROMPT
        try:
            raise KeyError(PROMPT)
        except KeyError as failure:
            raise ValueError(PROMPT) from failure

    with caplog.at_level(logging.INFO):
        assert (await bench.run(engine)).message == PROMPT
    assert "test_attempt.py" in caplog.text
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("leave", [lambda: sys.exit(3), lambda: (_ for _ in ()).throw(KeyboardInterrupt)])
async def test_an_exit_fails_its_request_only(bench: Bench, leave: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"
        for _ in leave():
            yield "never"

    outcome = await bench.run(engine)
    assert outcome.error_type == "internal"
    assert outcome.message.startswith("The engine raised ")
    assert "SystemExit" in caplog.text or "KeyboardInterrupt" in caplog.text


async def test_a_wrong_value_is_named(bench: Bench) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Any]:
        yield b"bytes"

    outcome = await bench.run(engine)
    assert outcome.error_type == "internal"
    assert "yielded a value of type bytes" in outcome.message


async def test_a_function_that_returns_no_generator_is_named(bench: Bench) -> None:
    def engine(request: dict[str, Any], context: EngineContext) -> Any:
        return ["x"]

    assert "returned a value of type list" in (await bench.run(engine)).message


async def test_long_integers_keep_their_value(bench: Bench) -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield str(request["seed"])

    bench.body = json.dumps({"seed": 2**70 + 1}).encode()
    await bench.run(engine)
    assert await bench.events() == [str(2**70 + 1)]


async def test_a_late_event_loop_is_no_silence(make_settings: MakeSettings, make_store: MakeStore) -> None:
    """An event that came while the loop was blocked is there before the time of silence is over."""
    loop = asyncio.get_running_loop()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "before"
        came = asyncio.Event()
        timer = threading.Timer(0.5, lambda: loop.call_soon_threadsafe(came.set))
        timer.start()
        await asyncio.sleep(0)
        blocked = threading.Event()
        blocked.wait(1.5)  # blocks the event loop for longer than the limit
        await came.wait()
        yield "after"

    world = World(make_store(make_settings(lease_secs=60.0, backend_stream_timeout_secs=1)))
    await world.open()
    outcome = await Bench(world).run(engine)
    assert (outcome.status, outcome.message) == ("completed", "")


async def test_what_is_refused_as_the_lease_has_expired_is_left_to_the_reaper(bench: Bench) -> None:
    """The reaper queues it again or fails it; nobody has cancelled it."""

    async def outlives_its_lease(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Any]:
        await bench.world.store.expire(0, "w0")
        yield "refused"
        await asyncio.sleep(BOUND_SECS)

    assert await bench.outcomes(outlives_its_lease) == []
    assert (await bench.world.record()).status is Status.RUNNING
    assert await bench.world.reap("w0") == (0, 1, 0)
    assert await bench.world.cancel() == "terminal"


@pytest.mark.leaves_inflight
async def test_an_attempt_of_an_expired_worker_reports_no_end(bench: Bench) -> None:
    refused: list[str] = []

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        await bench.world.expire("w0")
        yield "a"
        try:
            await context.killed()
        finally:
            refused.append((await bench.world.record()).status)

    assert await bench.outcomes(engine) == []
    assert refused == ["running"]
    assert (await bench.world.record()).status == "running", "whoever cleans up after it decides what becomes of it"

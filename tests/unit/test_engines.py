"""Declarations, engines in threads, and the parts of the openai engine that need no socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.declarations import accepted_parameters
from lifecycle.execution.engine import Engine, EngineLoadError, aclose
from lifecycle.execution.threaded import as_async
from lifecycle.settings import SettingsError, load
from lifecycle.types import Event
from worker.engines.echo import EchoEngine
from worker.engines.openai import OpenAIEngine
from worker.engines.upstream import Upstream
from worker.server import serve

BOUND_SECS = 2.0


async def tokens(engine: Engine, request: dict[str, Any], context: EngineContext | None = None) -> list[Event]:
    async with asyncio.timeout(BOUND_SECS):
        return [token async for token in engine(request, context or EngineContext("r"))]


def test_an_engine_declares_what_it_takes() -> None:
    class Declares:
        accepts: object = ()

        async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
            yield "x"

    engine = Declares()
    assert accepted_parameters(engine) == []
    engine.accepts = {"tools", "n"}
    assert accepted_parameters(engine) == ["n", "tools"]
    engine.accepts = True
    assert accepted_parameters(engine) == ["*"]
    assert accepted_parameters(EchoEngine(0)) == []
    assert accepted_parameters(OpenAIEngine("http://127.0.0.1:1")) == ["*"]


@pytest.mark.parametrize(
    "url", ["localhost:8001", "ftp://host/v1", "http://", "http://host:port", "/v1", "http://host/v1#part"]
)
def test_an_upstream_must_be_a_url(url: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_BASE_URL"):
        OpenAIEngine(url)


@pytest.mark.parametrize("url", ["http://bob:hunter2@host:port/v1", "bob:hunter2@host", "ftp://bob:hun/ter2@host"])
def test_a_refused_url_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(EngineLoadError) as raised:
        OpenAIEngine(url)
    assert "ter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["“sk-secret”", "sk-\nsecret", "sk-\x00secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_API_KEY") as raised:
        OpenAIEngine("http://127.0.0.1:1", key)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://bob:hunter2@127.0.0.1:1/"),
        ("ALL_PROXY", "http://bob:hunter2@[::1/"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ],
)
def test_an_environment_that_fails_every_call_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EngineLoadError, match=name) as raised:
        OpenAIEngine("http://127.0.0.1:1")
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("base_url", "message", "shown"),
    [
        ("http://10.0.0.7:8000/v1", "no route to http://10.0.0.7:8000/v1/x", "no route to [upstream]/v1/x"),
        ("http://10.0.0.7:8000/v1", "10.0.0.7 is away, 110.0.0.7 is not", "[upstream] is away, 110.0.0.7 is not"),
        ("http://bob:hunter2@vllm/v1", "bob:hunter2 at http://bob:hunter2@vllm/", "[redacted] at [upstream]/"),
        ("http://vllm:8000", "vllm: no such model at VLLM:8000", "vllm: no such model at [upstream]"),
        ("http://[::1]:8000/", "connect [::1]:8000 failed", "connect [upstream] failed"),
        ("https://api.example.com/v1", "Incorrect key sk-secret", "Incorrect key [redacted]"),
    ],
)
def test_a_message_names_neither_address_nor_credentials(base_url: str, message: str, shown: str) -> None:
    assert Upstream(base_url, " sk-secret\n").scrub(message) == shown


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host", "http://host/v1/x"),
        ("http://host/", "http://host/v1/x"),
        ("http://host:81/api/v2/", "http://host:81/api/v2/x"),
        ("http://bob:pw@host/v1?api-version=1&b=2", "http://host/v1/x?api-version=1&b=2"),
    ],
)
def test_the_urls_of_an_upstream(base_url: str, url: str) -> None:
    assert Upstream(base_url).url("/x") == url


@pytest.mark.parametrize("models", [[], [""], ["m", " "]])
async def test_a_worker_needs_the_name_of_a_model(models: list[str]) -> None:
    with pytest.raises(SettingsError, match="--model"):
        await serve(load(), models, "echo")


# a synchronous engine


def threaded(function: Any) -> Any:
    function.run_in_thread = True
    return as_async(function)


async def test_a_synchronous_engine_leaves_the_loop_alone() -> None:
    ticks = threading.Semaphore(0)

    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        for number in range(3):
            assert ticks.acquire(timeout=BOUND_SECS)
            context.input_tokens = number
            yield str(number)

    context = EngineContext("r")
    answer = asyncio.create_task(tokens(engine, {}, context))
    for _ in range(3):
        await asyncio.sleep(0)
        ticks.release()  # by the loop, which therefore runs
    assert await answer == ["0", "1", "2"]
    assert context.input_tokens == 2


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_a_synchronous_engine_passes_its_errors_on(failure: BaseException) -> None:
    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        yield "x"
        raise failure

    answer = engine({}, EngineContext("r"))
    assert await anext(answer) == "x"
    with pytest.raises(type(failure)):
        await anext(answer)


async def test_a_cancelled_synchronous_engine_ends_at_its_next_yield() -> None:
    release, closed = threading.Event(), threading.Event()

    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        try:
            yield "x"
            release.wait(BOUND_SECS)
            yield "never"
        finally:
            closed.set()

    answer = engine({}, EngineContext("r"))
    assert await anext(answer) == "x"
    waiting = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait((waiting,), timeout=0.05)
    assert not done  # the thread is busy, and so is the attempt
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, BOUND_SECS)
    assert closed.is_set()


# echo


# interruption


# what the upstream sends


async def test_closing_an_engine_that_holds_nothing_is_fine() -> None:
    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"

    await aclose(generate)
    await aclose(OpenAIEngine("http://127.0.0.1:1"))

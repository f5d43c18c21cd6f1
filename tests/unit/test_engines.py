"""Loading engines, the echo engine, and the parts of the openai engine that need no socket."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.ids import is_request_id
from lifecycle.settings import load
from worker.engines import EngineError, EngineLoadError, close_engine, load_engine
from worker.engines.completion_parser import error_message
from worker.engines.echo import EchoEngine
from worker.engines.interruption import Interrupted, Interruption
from worker.engines.openai import OpenAIEngine, upstream_request_id
from worker.engines.sse import MAX_EVENT_BYTES, EventTooLong, ServerSentEvent, SseParser

BOUND_SECS = 5.0

USER_MODULE = """
import functools

async def generate(request, context):
    yield "hi"

async def extra(greeting, request, context):
    yield greeting

partial = functools.partial(extra, "hello")

class Engine:
    async def __call__(self, request, context):
        yield "instance"

    async def method(self, request, context):
        yield "method"

engine = Engine()

def plain(request, context):
    return generate(request, context)

async def never_yields(request, context):
    return "hi"

async def too_few(request):
    yield "hi"

number = 3
"""


@pytest.fixture
def user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules nobody else has; the import system forgets them afterwards."""
    (tmp_path / "my_engine.py").write_text(USER_MODULE)
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no GPU\\nat all')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_engine", "needs_more", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


async def tokens(engine: Engine, request: dict[str, Any], context: EngineContext | None = None) -> list[str]:
    async with asyncio.timeout(BOUND_SECS):
        return [token async for token in engine(request, context or EngineContext("r"))]


# loading


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("generate", "hi"),
        ("partial", "hello"),
        ("engine", "instance"),
        ("engine.method", "method"),
        ("plain", "hi"),
    ],
)
@pytest.mark.usefixtures("user_directory")
async def test_loads_what_can_be_an_engine(attribute: str, said: str) -> None:
    engine = load_engine(f"my_engine:{attribute}", load())
    assert await tokens(engine, {}) == [said]
    await close_engine(engine)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("nonsense", "use echo, openai or module:function"),
        (":generate", "use echo, openai or module:function"),
        ("my_engine:", "use echo, openai or module:function"),
        ("no_such_module:generate", "no module 'no_such_module'"),
        ("my_engine.deeper:generate", "no module 'my_engine.deeper'"),
        ("needs_more:generate", "No module named 'not_installed_anywhere'"),
        ("broken:generate", "RuntimeError: no GPU"),
        ("my_engine:generated", "'my_engine' has no 'generated'"),
        ("my_engine:engine.nothing", "has no 'engine.nothing'"),
        ("my_engine:number", "is of type int; name an async generator function"),
        ("my_engine:Engine", "is the class Engine; name an async generator function"),
        ("my_engine:never_yields", "never yields"),
        ("my_engine:too_few", "does not take (request, context)"),
        ("openai", "--upstream URL"),
    ],
)
@pytest.mark.usefixtures("user_directory")
def test_says_in_one_line_why_it_cannot_load(spec: str, hint: str) -> None:
    with pytest.raises(EngineLoadError) as raised:
        load_engine(spec, load({"openai_base_url": ""}))
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_loads_the_built_in_ones() -> None:
    settings = load({"openai_base_url": "http://127.0.0.1:1/v1"})
    assert isinstance(load_engine("echo", settings), EchoEngine)
    assert isinstance(load_engine("openai", settings), OpenAIEngine)


@pytest.mark.parametrize("url", ["localhost:8001", "ftp://host/v1", "http://", "http://host:port", "/v1"])
def test_an_upstream_must_be_a_url(url: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_BASE_URL"):
        OpenAIEngine(url)


# echo


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}], **more}


@given(st.text() | st.text(alphabet=" \t\n a"))
async def test_echo_reproduces_the_prompt(prompt: str) -> None:
    said = await tokens(EchoEngine(0), {"prompt": prompt})
    assert "".join(said) == prompt
    assert len(said) == (len(prompt.split()) or bool(prompt))


async def test_echo_puts_the_space_in_front_of_the_word() -> None:
    assert await tokens(EchoEngine(0), chat("one  two\nthree ")) == ["one", "  two", "\nthree "]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (chat([{"type": "text", "text": "a b"}, {"type": "image_url"}, {"type": "text", "text": " c"}]), "a b c"),
        ({"messages": [{"role": "user", "content": "old"}, {"role": "user", "content": "new"}]}, "new"),
        ({"messages": [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "its"}]}, "mine"),
        ({"messages": [{"role": "system", "content": "alone"}]}, ""),
        (chat(None), ""),
        ({"prompt": ["first", "second"]}, "first second"),
        ({"prompt": [1, 2]}, "1 2"),
        ({}, ""),
    ],
)
async def test_echo_finds_the_prompt(request_: dict[str, Any], said: str) -> None:
    assert "".join(await tokens(EchoEngine(0), request_)) == said


@pytest.mark.parametrize(
    ("limits", "count", "reason"),
    [
        ({"max_tokens": 2}, 2, "length"),
        ({"max_completion_tokens": 1, "max_tokens": 3}, 1, "length"),
        ({"max_completion_tokens": None, "max_tokens": 2}, 2, "length"),
        ({"max_tokens": 0}, 0, "length"),
        ({"max_tokens": 3}, 3, None),
        ({"max_tokens": 30}, 3, None),
        ({}, 3, None),
    ],
)
async def test_echo_ends_at_the_limit(limits: dict[str, Any], count: int, reason: str | None) -> None:
    context = EngineContext("r")
    assert len(await tokens(EchoEngine(0), chat("a b c", **limits), context)) == count
    assert context.finish_reason == reason
    assert context.input_tokens == 3


@given(
    prompt=st.text(alphabet="ab ", max_size=6),
    stop=st.text(alphabet="ab ", max_size=15) | st.lists(st.text(alphabet="ab ", max_size=15), max_size=3) | st.none(),
    repeat=st.integers(1, 6),
)
async def test_echo_repeats_and_ends_before_a_stop_sequence(prompt: str, stop: Any, repeat: int) -> None:
    said = await tokens(EchoEngine(0), {"prompt": prompt, "stop": stop, "echo_repeat": repeat})
    full = " ".join([prompt] * repeat)
    found = [full.find(s) for s in ([stop] if isinstance(stop, str) else stop or []) if s and s in full]
    expected = full[: min(found, default=len(full))]
    if prompt.strip():
        assert "".join(said) == expected
    else:  # nothing but white space has no word to repeat
        assert not "".join(said).strip()


@pytest.mark.parametrize("repeat", [0, -1, "2", 1.5, True, None])
async def test_echo_refuses_a_senseless_repeat(repeat: Any) -> None:
    with pytest.raises(EngineError, match="echo_repeat"):
        await tokens(EchoEngine(0), {"prompt": "a", "echo_repeat": repeat})


async def test_echo_keeps_its_pace() -> None:
    began = time.monotonic()
    await tokens(EchoEngine(1000), {"prompt": "w", "echo_repeat": 51})
    assert time.monotonic() - began >= 50 / 1000


async def test_echo_does_not_drift() -> None:
    # Each sleep lasts a millisecond or more: one for each of these tokens would take three times the bound.
    await tokens(EchoEngine(1e6), {"prompt": "w", "echo_repeat": 15_000})


async def test_echo_leaves_the_loop_its_turns() -> None:
    turns = 0
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        handle.append(loop.call_soon(turn))

    handle = [loop.call_soon(turn)]
    await tokens(EchoEngine(0), {"prompt": "w", "echo_repeat": 3200})
    handle[-1].cancel()
    assert turns >= 100


@pytest.mark.parametrize("end", [EngineContext.stop, EngineContext.kill])
async def test_echo_stops_while_it_waits(end: Any) -> None:
    context = EngineContext("r")
    answer = EchoEngine(1 / 3600)(chat("now in-an-hour"), context)
    async with asyncio.timeout(BOUND_SECS):
        assert await anext(answer) == "now"
        asyncio.get_running_loop().call_soon(end, context)
        assert [token async for token in answer] == []


async def test_echo_says_nothing_once_it_is_stopped() -> None:
    context = EngineContext("r")
    context.stop()
    assert await tokens(EchoEngine(1 / 3600), chat("a b"), context) == []


async def test_echo_can_be_cancelled_while_it_waits() -> None:
    context = EngineContext("r")
    answer = EchoEngine(1 / 3600)(chat("now in-an-hour"), context)
    await asyncio.wait_for(anext(answer), BOUND_SECS)
    waiting = asyncio.ensure_future(anext(answer))
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, BOUND_SECS)
    context.kill()  # reaches nothing that is gone


# interruption


async def test_an_interruption_passes_results_and_errors_through() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with Interruption(EngineContext("r")) as interruption:
        assert await interruption.run(asyncio.sleep(0, "result")) == "result"
        with pytest.raises(TimeoutError, match="its own"):
            await interruption.run(fail())


async def test_an_interruption_cuts_every_later_await_short() -> None:
    context = EngineContext("r")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(BOUND_SECS):
        with Interruption(context) as interruption:
            loop.call_soon(context.stop)
            loop.call_soon(context.kill)
            for _ in range(3):
                with pytest.raises(Interrupted):
                    await interruption.run(loop.create_future())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_kill_may_come_while_a_stop_is_cleaned_up() -> None:
    context = EngineContext("r")

    async def read() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            context.kill()

    with Interruption(context) as interruption:
        asyncio.get_running_loop().call_soon(context.stop)
        with pytest.raises(Interrupted):
            await asyncio.wait_for(interruption.run(read()), BOUND_SECS)


async def test_a_cancellation_from_outside_stays_one() -> None:
    context = EngineContext("r")

    async def engine() -> None:
        with Interruption(context) as interruption:
            await interruption.run(asyncio.get_running_loop().create_future())

    task = asyncio.create_task(engine())
    await asyncio.sleep(0)
    context.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, BOUND_SECS)


# what the upstream sends


WIRE = (
    ": keepalive\n\n"
    'event: message\r\ndata: {"a":"käse"}\r\n\r\n'
    "data:one\ndata: two\nid: 3\nretry: 1\nnonsense\n\n\n"
    "event: error\n: lost the stream\n\n"
    "event: ping\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    ServerSentEvent('{"a":"käse"}'.encode(), b"message"),
    ServerSentEvent(b"one\ntwo"),
    ServerSentEvent(b"lost the stream", b"error"),
    ServerSentEvent(b"[DONE]"),
]


@given(st.lists(st.integers(0, len(WIRE))))
def test_events_do_not_depend_on_where_the_stream_is_cut(cuts: list[int]) -> None:
    parser = SseParser()
    edges = [0, *sorted(cuts), len(WIRE)]
    pieces = [WIRE[a:b] for a, b in itertools.pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
    assert parser.end() == []


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    parser = SseParser()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.end() == [ServerSentEvent(b"[DONE]")]


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 4096, b"data: " + b"x" * 4096 + b"\n"])
def test_an_event_has_a_bounded_length(wire: bytes) -> None:
    parser = SseParser()
    fits, too_many = MAX_EVENT_BYTES // len(wire), 10

    def feed(count: int) -> None:
        for _ in range(count):
            parser.feed(wire)

    feed(fits)
    with pytest.raises(EventTooLong):
        feed(too_many)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","type":"x"}}', "too long"),
        (b'{"error":"not loaded"}', "not loaded"),
        (b'{"object":"error","message":"bad"}', "bad"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', '[{"loc":["body"]}]'),
        (b'{"error":{"code":7}}', '{"code":7}'),
        (b"Bad Gateway\n", "Bad Gateway"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"{}", ""),
        (b"", ""),
    ],
)
def test_finds_the_upstreams_own_words(body: bytes, message: str) -> None:
    assert error_message(body) == message


def test_the_upstreams_request_id_is_valid_and_differs_for_each_attempt() -> None:
    ids = ["a", "a" * 126, "a" * 127, "a" * 127 + "b", "a" * 127 + "c"]
    made = [upstream_request_id(id, attempt) for id in ids for attempt in (1, 2, 100)]
    assert made[0] == "a.1"
    assert all(map(is_request_id, made))
    assert len(set(made)) == len(made)


async def test_closing_an_engine_that_holds_nothing_is_fine() -> None:
    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"

    await close_engine(generate)
    await close_engine(OpenAIEngine("http://127.0.0.1:1"))

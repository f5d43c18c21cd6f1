"""The openai engine in front of a server on a real socket: what it sends, how it reads the answer, how it aborts."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from lifecycle.errors import STREAM_ENDED
from lifecycle.execution.context import EngineContext
from worker.engines import EngineError, close_engine
from worker.engines.openai import OpenAIEngine
from worker.engines.sse import MAX_EVENT_BYTES

BOUND_SECS = 10.0
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
NO_MESSAGE = "the upstream answered with status {} and no message; see its log"
NOT_JSON = "the upstream sent an event that is not JSON; check that its API is OpenAI-compatible"
NOT_A_CHUNK = "the upstream sent an event that is not a completion chunk; check that its API is OpenAI-compatible"

Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request as the upstream received it, and the means to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter

    async def head(self, status: str = "200 OK", kind: str = "text/event-stream", **more: str) -> None:
        headers = {"content-type": kind, "transfer-encoding": "chunked"} | {
            name.replace("_", "-"): value for name, value in more.items()
        }
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    async def send(self, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


@dataclass
class Upstream:
    """A server that plays `script` for each request and notices when its client goes."""

    script: Script
    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    received: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                exchange = await self._read(reader, writer)
                self.exchanges.append(exchange)
                self.received.set()
                await self.script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.client_left.set()
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        return Exchange(request_line.split()[1], headers, orjson.loads(body), writer)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Script], Awaitable[tuple[Upstream, OpenAIEngine]]]]:
    """Starts an upstream and an engine in front of it; leaves neither sockets nor tasks behind."""
    before = asyncio.all_tasks()
    running: list[tuple[asyncio.Server, OpenAIEngine]] = []

    async def start(script: Script) -> tuple[Upstream, OpenAIEngine]:
        upstream = Upstream(script)
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        upstream.url = "http://{}:{}/v1".format(*server.sockets[0].getsockname())
        engine = OpenAIEngine(upstream.url, "secret")
        running.append((server, engine))
        return upstream, engine

    yield start
    for server, engine in running:
        await close_engine(engine)
        server.close()
    gc.collect()  # what an abandoned generator would leave shows up now
    async with asyncio.timeout(BOUND_SECS):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0)


Serve = Callable[[Script], Awaitable[tuple[Upstream, OpenAIEngine]]]


def chunk(text: str | None, **more: Any) -> str:
    return f"data: {orjson.dumps({'choices': [{'index': 0, 'delta': {'content': text}, **more}]}).decode()}\n\n"


def text_chunk(text: str, **more: Any) -> str:
    return f"data: {orjson.dumps({'choices': [{'index': 0, 'text': text, **more}]}).decode()}\n\n"


USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
DONE = "data: [DONE]\n\n"


def playing(*parts: bytes | str, finish: bool = True, **head: str) -> Script:
    """Sends the head, then each part by itself, then the end of the body; or hangs up in the middle of it."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(**head)
        for part in parts:
            await exchange.send(part)
        if finish:
            await exchange.end()
        else:
            exchange.writer.close()

    return script


def silent_after(*parts: str, head: bool = True) -> Script:
    """Sends the parts, then nothing more."""

    async def script(exchange: Exchange) -> None:
        if head:
            await exchange.head()
        for part in parts:
            await exchange.send(part)

    return script


async def collect(
    engine: OpenAIEngine, request: dict[str, Any] = REQUEST, context: EngineContext | None = None
) -> list[str]:
    async with asyncio.timeout(BOUND_SECS):
        return [token async for token in engine(request, context or EngineContext("r"))]


async def within_bound(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), BOUND_SECS)


# answers


async def test_a_chat_passes_through(serve: Serve) -> None:
    upstream, engine = await serve(
        playing(
            'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
            chunk("Hel"),
            chunk(None),
            ": keepalive\n\n" + chunk("lo"),
            chunk("!", finish_reason="length"),
            USAGE,
            DONE,
        )
    )
    context = EngineContext("chat-1", attempt=2)
    context.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    request = {**REQUEST, "temperature": 0.5, "stream": False, "stream_options": {"other": 1}}
    assert await collect(engine, request, context) == ["Hel", "lo", "!"]
    assert (context.finish_reason, context.input_tokens) == ("length", 7)

    [exchange] = upstream.exchanges
    assert exchange.path == "/v1/chat/completions"
    assert exchange.headers["authorization"] == "Bearer secret"
    assert exchange.headers["x-request-id"] == "chat-1.2"
    assert exchange.headers["traceparent"] == context.traceparent
    assert exchange.body == {**request, "stream": True, "stream_options": {"other": 1, "include_usage": True}}


async def test_a_completion_passes_through(serve: Serve) -> None:
    upstream, engine = await serve(playing(text_chunk("a"), text_chunk("b", finish_reason="stop"), DONE))
    context = EngineContext("r")
    assert await collect(engine, {"model": "m", "prompt": "p"}, context) == ["a", "b"]
    assert context.finish_reason == "stop"
    assert upstream.exchanges[0].path == "/v1/completions"


async def test_a_bare_host_gets_the_usual_path(serve: Serve) -> None:
    upstream, _ = await serve(playing(chunk("x"), DONE))
    engine = OpenAIEngine(upstream.url.removesuffix("/v1"))
    assert await collect(engine) == ["x"]
    assert upstream.exchanges[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.exchanges[0].headers
    await close_engine(engine)


async def test_an_answer_may_be_cut_anywhere(serve: Serve) -> None:
    wire = (chunk("grün") + chunk("😀") + DONE).replace("\n", "\r\n").encode()
    _, engine = await serve(playing(*(wire[i : i + 1] for i in range(len(wire)))))
    assert await collect(engine) == ["grün", "😀"]


@pytest.mark.parametrize(
    "ending", [[chunk("x"), DONE], [chunk("x", finish_reason="stop")], [chunk("x"), "data: [DONE]"]]
)
async def test_either_sign_of_the_end_is_enough(serve: Serve, ending: list[str]) -> None:
    _, engine = await serve(playing(*ending))
    assert await collect(engine) == ["x"]


async def test_a_connection_torn_after_the_end_does_no_harm(serve: Serve) -> None:
    _, engine = await serve(playing(chunk("x", finish_reason="stop"), finish=False))
    assert await collect(engine) == ["x"]


async def test_an_upstream_that_leaves_the_body_open_does_not_hold_the_answer(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("x"), DONE))
    assert await collect(engine) == ["x"]
    await within_bound(upstream.client_left)


async def test_a_connection_is_used_again(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    for _ in range(3):
        assert await collect(engine) == ["x"]
    assert (upstream.connections, len(upstream.exchanges)) == (1, 3)


async def test_an_engine_can_be_used_after_it_was_closed(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    await collect(engine)
    await close_engine(engine)
    assert await collect(engine) == ["x"]
    assert upstream.connections == 2


# failures


async def failure(engine: OpenAIEngine) -> tuple[list[str], str]:
    """What the engine yielded, and what it said when it failed."""
    said: list[str] = []
    try:
        async with asyncio.timeout(BOUND_SECS):
            async for token in engine(REQUEST, EngineContext("r")):
                said.append(token)
    except EngineError as raised:
        return said, str(raised)
    pytest.fail(f"no EngineError after {said}")


@pytest.mark.parametrize(
    ("status", "kind", "body", "message"),
    [
        ("404 Not Found", "application/json", '{"error":{"message":"no model m"}}', "no model m"),
        ("400 Bad Request", "application/json", '{"detail":"nope"}', "nope"),
        ("502 Bad Gateway", "text/html", "gone fishing", "gone fishing"),
        ("500 Internal Server Error", "text/plain", "", NO_MESSAGE.format(500)),
        ("307 Temporary Redirect", "text/plain", "", NO_MESSAGE.format(307)),
        ("200 OK", "application/json", '{"error":{"message":"not really ok"}}', "not really ok"),
        ("200 OK", "application/json", '{"choices":[]}', '{"choices":[]}'),
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
        ("event: error\n\n", "the upstream reported an error without a message; see its log"),
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


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    engine = OpenAIEngine(f"http://127.0.0.1:{port}/v1")
    said, message = await failure(engine)
    assert said == []
    assert message.startswith(f"cannot connect to the upstream http://127.0.0.1:{port}/v1/chat/completions: ")
    await close_engine(engine)


async def test_an_upstream_that_hangs_up_before_it_answers(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.writer.close()

    _, engine = await serve(script)
    said, message = await failure(engine)
    assert said == []
    assert message.startswith("no answer from the upstream ")


# aborts: each closes the upstream connection, wherever it happens to be

ENDINGS = [EngineContext.stop, EngineContext.kill]


@pytest.mark.parametrize("end", ENDINGS)
async def test_ends_while_the_upstream_is_silent(serve: Serve, end: Callable[[EngineContext], None]) -> None:
    upstream, engine = await serve(silent_after(chunk("a")))
    context = EngineContext("r")
    answer = engine(REQUEST, context)
    async with asyncio.timeout(BOUND_SECS):
        assert await anext(answer) == "a"
        rest = asyncio.ensure_future(anext(answer, "ended"))
        await asyncio.sleep(0)
        end(context)
        assert await rest == "ended"
        await upstream.client_left.wait()


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("script", [silent_after(head=False), silent_after()], ids=["before headers", "before a token"])
async def test_ends_before_the_first_token(serve: Serve, script: Script, end: Callable[[EngineContext], None]) -> None:
    upstream, engine = await serve(script)
    context = EngineContext("r")
    everything = asyncio.create_task(collect(engine, context=context))
    await within_bound(upstream.received)
    end(context)
    assert await asyncio.wait_for(everything, BOUND_SECS) == []
    await within_bound(upstream.client_left)


async def test_ends_between_two_tokens_of_one_packet(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("a") + chunk("b") + chunk("c")))
    context = EngineContext("r")
    said = []
    async with asyncio.timeout(BOUND_SECS):
        async for token in engine(REQUEST, context):
            said.append(token)
            context.stop()
    assert said == ["a"]
    await within_bound(upstream.client_left)


async def test_never_asks_once_it_is_stopped(serve: Serve) -> None:
    upstream, engine = await serve(playing(DONE))
    context = EngineContext("r")
    context.stop()
    assert await collect(engine, context=context) == []
    assert upstream.connections == 0


@pytest.mark.parametrize("script", [silent_after(head=False), silent_after(), silent_after(chunk("a"))])
async def test_a_cancelled_task_closes_the_connection(serve: Serve, script: Script) -> None:
    upstream, engine = await serve(script)
    everything = asyncio.create_task(collect(engine))
    await within_bound(upstream.received)
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything
    await within_bound(upstream.client_left)


async def test_a_closed_generator_closes_the_connection(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("a") + chunk("b")))
    async with asyncio.timeout(BOUND_SECS), aclosing(engine(REQUEST, EngineContext("r"))) as answer:  # type: ignore[type-var]
        assert await anext(answer) == "a"
    await within_bound(upstream.client_left)


async def test_a_stopped_request_leaves_the_others_alone(serve: Serve) -> None:
    released = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(chunk("a"))
        await released.wait()
        await exchange.send(chunk("b") + DONE)
        await exchange.end()

    _, engine = await serve(script)
    contexts = [EngineContext(f"r-{i}") for i in range(20)]
    answers = [engine(REQUEST, context) for context in contexts]
    async with asyncio.timeout(BOUND_SECS):
        assert await asyncio.gather(*(anext(answer) for answer in answers)) == ["a"] * 20
        contexts[0].kill()
        assert await anext(answers[0], "ended") == "ended"
        released.set()
        assert await asyncio.gather(*(anext(answer) for answer in answers[1:])) == ["b"] * 19
        for answer in answers:
            assert [token async for token in answer] == []

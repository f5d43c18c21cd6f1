"""An engine that plays recorded answers, for comparing what a client library makes of them.

The name of the model says which answer: that of a file in `tests/recorded`, or one of `SPECIAL`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.answers import joined
from tests.upstream import Exchange, Upstream

RECORDED = Path(__file__).parents[1] / "recorded"
RECORDINGS = sorted({path.stem for path in RECORDED.glob("*.sse")})
ANSWERS_ONLY = sorted({path.stem for path in RECORDED.glob("*.json")} - {*RECORDINGS, "llama_context_overflow"})
START_SECS = 10.0
_DONE = b"data: [DONE]\n\n"
_ERROR = {"message": "the engine has run out of memory", "type": "server_error", "code": "oom", "param": None}
_RATE_LIMIT = {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded", "param": None}


async def play(exchange: Exchange, name: str) -> None:
    """Send the recorded answer of this name, streamed or unary as the call asks for."""
    if exchange.body.get("stream") and name in RECORDINGS:
        await exchange.head()
        for event in _events(exchange, name):
            await exchange.send(event)
    else:
        await exchange.head(kind="application/json")
        await exchange.send(_as_model(_unary(name), exchange))
    await exchange.end()


async def _agent(exchange: Exchange) -> None:
    """Call a tool, or several for the other model, and answer with a text once the results are there."""
    answered = any(message["role"] == "tool" for message in exchange.body["messages"])
    calls = "llama_one_tool" if exchange.body["model"] == "agent" else "llama_parallel_tools"
    await play(exchange, "llama_text" if answered else calls)


async def _context_overflow(exchange: Exchange) -> None:
    await exchange.head("400 Bad Request", "application/json")
    await exchange.send((RECORDED / "llama_context_overflow.json").read_bytes())
    await exchange.end()


async def _rate_limit(exchange: Exchange) -> None:
    await exchange.head("429 Too Many Requests", "application/json", retry_after="1")
    await exchange.send(json.dumps({"error": _RATE_LIMIT}))
    await exchange.end()


async def _broken(exchange: Exchange) -> None:
    """Report an error in the middle of a stream."""
    await exchange.head()
    for event in _events(exchange, "llama_text")[:5]:
        await exchange.send(event)
    await exchange.send(f"data: {json.dumps({'error': _ERROR})}\n\n")
    await exchange.send(_DONE)
    await exchange.end()


async def _endless(exchange: Exchange) -> None:
    """Begin a stream and say nothing more. `GET /left` tells how many of these connections were closed."""
    await exchange.head()
    for event in _events(exchange, "llama_text")[:5]:
        await exchange.send(event)


SPECIAL: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "agent": _agent,
    "parallel_agent": _agent,
    "context_overflow": _context_overflow,
    "rate_limit": _rate_limit,
    "broken": _broken,
    "endless": _endless,
}
MODELS = (*RECORDINGS, *ANSWERS_ONLY, *SPECIAL)


class Replay:
    """A running replay server, in a thread with an event loop of its own."""

    def __init__(self) -> None:
        self.upstream = Upstream(self._answer)

    @property
    def url(self) -> str:
        return self.upstream.url

    @property
    def calls(self) -> list[Exchange]:
        """The calls for completions so far."""
        return [exchange for exchange in self.upstream.exchanges if exchange.path.endswith("/completions")]

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path == "/left":
            left = [other for other in self.upstream.left if other.body.get("model") == "endless"]
            await send_json(exchange, len(left))
            return
        if exchange.path == "/v1/models":
            await send_json(exchange, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})
            return
        model = exchange.body["model"]
        await (SPECIAL[model](exchange) if model in SPECIAL else play(exchange, model))


R = TypeVar("R", bound=Replay)


@contextmanager
def replaying(replay: R) -> Iterator[R]:
    """Run a replay server."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(replay.upstream.serve, "127.0.0.1", 0)
        replay.upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await ending.wait()
        server.close()
        for task in (connections := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="replay")
    thread.start()
    try:
        assert started.wait(START_SECS), "the replay server did not start"
        yield replay
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


async def send_json(exchange: Exchange, body: Any) -> None:
    await exchange.head(kind="application/json")
    await exchange.send(json.dumps(body))
    await exchange.end()


def _events(exchange: Exchange, name: str) -> list[bytes]:
    """Return the recorded events, with the usage where the call asks for it, as the engines do.

    Other fields of the last usage are on the last chunk if the usage is not asked for.
    """
    asked = exchange.body.get("stream_options") or {}
    events: list[bytes] = []
    for event in (RECORDED / f"{name}.sse").read_bytes().split(b"\n\n"):
        if event.startswith(b"data: {"):
            chunk = json.loads(event.removeprefix(b"data: "))
            if chunk["choices"] and chunk.get("usage") and not asked.get("continuous_usage_stats"):
                del chunk["usage"]
                event = _encode(chunk)
            elif not chunk["choices"] and not asked.get("include_usage"):
                del chunk["usage"]
                event = _encode({**chunk, **json.loads(events.pop().removeprefix(b"data: "))})
        if event:
            events.append(_as_model(event + b"\n\n", exchange))
    return events


def _encode(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode()


def _unary(name: str) -> bytes:
    """Return the recorded unary answer. Where there is none, it is what the recorded stream adds up to."""
    path = RECORDED / f"{name}.json"
    if path.exists():
        return path.read_bytes()
    events = (RECORDED / f"{name}.sse").read_bytes().split(b"\n\n")
    answer = joined(json.loads(event[6:]) for event in events if event.startswith(b"data: {"))
    return json.dumps({"id": "chatcmpl-0", "created": 1, **answer}, separators=(",", ":")).encode()


def _as_model(recorded: bytes, exchange: Exchange) -> bytes:
    """Return the answer under the model's name of this call."""
    name = json.dumps(exchange.body["model"]).encode()
    return recorded.replace(b'"model":"m"', b'"model":' + name).replace(b'"model":"tiny"', b'"model":' + name)

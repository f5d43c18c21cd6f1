"""Two upstreams with the scripted answers: one that serves responses and messages itself, and one that serves chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from lifecycle.settings import Settings
from tests.clients import as_chat, as_messages, as_responses
from tests.clients.replay import Replay, send_json
from tests.clients.scripted import CHAT_PREFIX, NAMES, name_of
from tests.cluster import Cluster, running
from tests.upstream import Exchange

_EVENTS_BEFORE_THE_END = 6  # of an answer that breaks off, or never ends
_OVERFLOW = "the prompt is longer than the context"
_LOST = "Item with id '{}' not found. Items are not persisted when `store` is set to false."
_numbers = count()  # of the errors of the Messages API: each has an id of its own
_SLOW_DOWN = "slow down"


class ScriptedReplay(Replay):
    """An upstream for responses, messages, or chat."""

    def __init__(self, formats: dict[str, ModuleType], prefix: str = "") -> None:
        """`formats` has the module that encodes the answers to each path. `prefix` begins the models' names."""
        super().__init__()
        self.beside: list[ScriptedReplay] = []  # upstreams whose clients `GET /left` counts, too
        self._formats = formats
        self._models = [prefix + name for name in NAMES]

    @property
    def calls(self) -> list[Exchange]:
        return [exchange for exchange in self.upstream.exchanges if exchange.path in self._formats and exchange.body]

    def left(self) -> int:
        """Return how many clients have left an endless answer."""
        return sum(name_of(exchange.body.get("model", "")) == "endless" for exchange in self.upstream.left)

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.path.partition("?")[0]
        if path == "/left":
            await send_json(exchange, self.left() + sum(other.left() for other in self.beside))
        elif path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in self._models]
            await send_json(exchange, {"object": "list", "data": models})
        elif path not in self._formats:
            await _fail(exchange, "404 Not Found", {"message": "Not Found", "type": "not_found_error"})
        elif "model" not in exchange.body:
            message = "'model' is missing"
            await _fail(exchange, "400 Bad Request", {"message": message, "type": "invalid_request_error"})
        else:
            await _play(exchange, self._formats[path])


def native() -> ScriptedReplay:
    """Return an upstream that serves responses and messages itself."""
    return ScriptedReplay({"/v1/responses": as_responses, "/v1/messages": as_messages})


def chat_only() -> ScriptedReplay:
    """Return an upstream that serves only chat completions. Its models' names begin with CHAT_PREFIX."""
    return ScriptedReplay({"/v1/chat/completions": as_chat}, CHAT_PREFIX)


@asynccontextmanager
async def in_front_of(
    engine: ScriptedReplay, chat: ScriptedReplay, settings: Settings, directory: Path
) -> AsyncIterator[Cluster]:
    """Run two frontends, and a worker for each upstream."""
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        for upstream in (engine, chat):
            await cluster.worker([], "openai", openai_base_url=upstream.url)
        yield cluster


async def _play(exchange: Exchange, kind: ModuleType) -> None:
    name = name_of(exchange.body["model"])
    if name == "context_overflow":
        error = {"message": _OVERFLOW, "type": "invalid_request_error"}
        if kind is not as_messages:
            error |= {"code": "context_length_exceeded", "param": "input"}
        await _fail(exchange, "400 Bad Request", error)
    elif kind is as_responses and (lost := as_responses.lost_item(exchange.body)):
        await _fail(exchange, "404 Not Found", {"message": _LOST.format(lost), "type": "invalid_request_error"})
    elif name == "rate_limit":
        error = {"message": _SLOW_DOWN, "type": "rate_limit_error"}
        if kind is not as_messages:
            error |= {"code": "rate_limit_exceeded"}
        await _fail(exchange, "429 Too Many Requests", error, retry_after="1")
    elif not exchange.body.get("stream"):
        await send_json(exchange, kind.whole(exchange.body))
    else:
        await _stream(exchange, kind, name)


async def _stream(exchange: Exchange, kind: ModuleType, name: str) -> None:
    events = kind.events(exchange.body)
    if name in ("broken", "endless"):
        events = events[:_EVENTS_BEFORE_THE_END]
    await exchange.head()
    for event in events:
        await exchange.send(kind.encode(event))
    if name == "endless":
        return
    if name == "broken":
        await exchange.send(kind.encode(kind.failure(events)))
    if kind is as_chat:
        await exchange.send("data: [DONE]\n\n")
    await exchange.end()


async def _fail(exchange: Exchange, status: str, error: dict[str, Any], **headers: str) -> None:
    await exchange.head(status, "application/json", **headers)
    body: dict[str, Any] = {"error": error}
    if exchange.path.startswith("/v1/messages"):
        body |= {"type": "error", "request_id": f"req_{next(_numbers)}"}
    await exchange.send(json.dumps(body))
    await exchange.end()

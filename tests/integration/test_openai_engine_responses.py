"""The openai engine in front of an upstream that serves the Responses API itself."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.errors import STREAM_ENDED, EngineError, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.formats.response_object import new_response
from lifecycle.types import Endpoint, Event
from tests.upstream import Serve, collect, playing, silent_after, within_bound
from worker.engines.openai import OpenAIEngine

BASE = new_response("resp_up", 1.0, {"model": "m"}, "in_progress")
CREATED = {"type": "response.created", "response": BASE}
PLACE = {"item_id": "i", "output_index": 0, "content_index": 0}
DELTA = {"type": "response.output_text.delta", **PLACE, "delta": "a", "logprobs": []}
COMPLETED = {"type": "response.completed", "response": {**BASE, "status": "completed"}}


def sent(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {orjson.dumps({**event, 'sequence_number': 3}).decode()}\n\n"


async def call(engine: OpenAIEngine, **body: Any) -> tuple[list[Event], EngineContext]:
    context = EngineContext("resp_1")
    context.endpoint = Endpoint.RESPONSES
    return await collect(engine, {"model": "m", "input": "hi"} | body, context), context


async def test_the_call_goes_as_it_came_but_for_what_the_tracker_serves(serve: Serve) -> None:
    upstream, engine = await serve(playing(sent(CREATED), sent(DELTA), sent(COMPLETED)))
    given = {"tools": [{"type": "web_search"}], "seed": 2**70, "stream_options": {"include_obfuscation": False}}
    kept = {"background": True, "store": True, "previous_response_id": "resp_0", "stream": False}
    events, _ = await call(engine, **given, **kept)
    assert events == [CREATED, DELTA, COMPLETED]
    (exchange,) = upstream.exchanges
    assert exchange.path == "/v1/responses"
    assert exchange.body == {
        "model": "m",
        "input": "hi",
        **given,
        "stream": True,
        "store": False,
        "background": False,
    }


async def test_a_whole_response_to_a_call_for_a_stream_is_used(serve: Serve) -> None:
    body = orjson.dumps({**BASE, "status": "completed", "usage": {"input_tokens": 1}})
    _, engine = await serve(playing(body, kind="application/json"))
    events, _ = await call(engine)
    assert [event["type"] for event in events if isinstance(event, dict)] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]


async def test_the_answer_is_complete_although_the_upstream_goes_on_sending(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(sent(CREATED), sent(COMPLETED) + ": and more\n\n"))
    events, _ = await call(engine)
    assert events == [CREATED, COMPLETED]
    await within_bound(upstream.client_left)


@pytest.mark.parametrize(
    ("parts", "kind"), [((CREATED,), Unavailable), ((CREATED, DELTA), EngineError)], ids=["begun", "with content"]
)
async def test_a_connection_that_breaks(serve: Serve, parts: Any, kind: type[EngineError | Unavailable]) -> None:
    _, engine = await serve(playing(*map(sent, parts), finish=False))
    with pytest.raises(kind, match=STREAM_ENDED):
        await call(engine)


async def test_an_upstreams_error_keeps_its_words_and_its_code(serve: Serve) -> None:
    error = {"type": "response.failed", "response": {**BASE, "error": {"code": "rate_limit_exceeded", "message": "m"}}}
    _, engine = await serve(playing(sent(CREATED), sent(error)))
    with pytest.raises(EngineError, match=r"^m$") as raised:
        await call(engine)
    assert (raised.value.detail.status, raised.value.detail.code) == (429, "rate_limit_exceeded")

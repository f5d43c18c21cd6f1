"""Translate what real servers streamed for chat, and check the answer by OpenAI's client library and by chat's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from frontend.endpoints.completions.fold import CompletionFold
from frontend.endpoints.responses.fold import ResponseFold
from lifecycle.execution.context import EngineContext
from lifecycle.execution.translated_engine import engine_for
from lifecycle.formats.event_format import format_of
from lifecycle.formats.origin import Origin
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, Event
from tests.responses import accumulate
from worker.engines.completion_parser import CompletionParser

RECORDED = Path(__file__).parents[1] / "recorded"
CHATS = sorted(path.name for path in RECORDED.glob("*.sse"))
BODY = {"model": "m", "input": "hi"}


class Recorded:
    """Serve chat completions by a recorded stream, as the openai engine reads it."""

    endpoints = (Endpoint.CHAT_COMPLETIONS,)

    def __init__(self, name: str) -> None:
        self.wire = (RECORDED / name).read_bytes()
        self.yielded: list[Event] = []

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        assert context.endpoint == Endpoint.CHAT_COMPLETIONS
        parser = CompletionParser(context)
        for event in parser.feed(self.wire):
            self.yielded.append(event)
            yield event
        if not parser.ended:
            for event in parser.feed(None):
                yield event


async def _translated(engine: Recorded) -> tuple[list[Any], EngineContext]:
    """Return the events that a worker writes, and the context as the engine has left it."""
    context, origin = EngineContext("resp_1"), Origin("resp_1", 1700000000.0, BODY, [])
    event_format = format_of(Endpoint.RESPONSES, origin)
    run = engine_for(engine, Endpoint.RESPONSES, origin)
    written = [event_format.read(event).encoded async for event in run(BODY, context)]
    return [orjson.loads(encoded) for encoded in written], context


@pytest.mark.parametrize("name", [name for name in CHATS if "n2" not in name])
async def test_a_recorded_chat_becomes_the_same_answer_in_responses(name: str) -> None:
    engine = Recorded(name)
    events, context = await _translated(engine)
    response = accumulate(events)
    fold = CompletionFold(Endpoint.CHAT_COMPLETIONS)
    fold.add(engine.yielded)
    end = End("completed", "", "", context.finish_reason or "stop", len(events), usage=context.usage)
    message = fold.body("r", "m", 0, end)["choices"][0]["message"]
    texts = {"message": "", "reasoning": ""}
    calls = []
    for item in response["output"]:
        if item["type"] == "function_call":
            calls.append((item["call_id"], item["name"], item["arguments"]))
        else:
            texts[item["type"]] += "".join(part["text"] for part in item["content"])
    assert texts["message"] == (message.get("content") or "")
    assert texts["reasoning"] == (message.get("reasoning") or message.get("reasoning_content") or "")
    assert calls == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    ]
    pieces = sum(event["type"].endswith(".delta") for event in events)
    assert response["usage"]["output_tokens"] == (context.usage or {"completion_tokens": pieces})["completion_tokens"]
    assert response["status"] == ("incomplete" if context.finish_reason == "length" else "completed")
    responses_fold = ResponseFold()
    responses_fold.add(events)
    assert responses_fold.completed(end) == response


@pytest.mark.parametrize("name", [name for name in CHATS if "n2" in name])
async def test_of_several_choices_only_the_first_counts(name: str) -> None:
    events, _ = await _translated(Recorded(name))
    assert [item["id"] for item in accumulate(events)["output"]] == [events[2]["item"]["id"]]

"""The Responses API through the official SDK, before upstreams that serve only chat, or the endpoint itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from lifecycle.formats.response_object import new_response
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.integration.test_responses_translated import TEXT, WEATHER, all_of, numbers, sdk_of
from tests.upstream import DONE, USAGE, Exchange, Upstream, chunk, within_bound
from tests.waiting import wait_until

CHAT, RESPONSES = "/chat/completions", "/responses"
PLACE = {"item_id": "msg_up", "output_index": 0, "content_index": 0}
PART = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
DONE_PART = {**PART, "text": "found"}
ITEM = {"type": "message", "id": "msg_up", "role": "assistant", "status": "in_progress", "content": []}
DONE_ITEM = {**ITEM, "status": "completed", "content": [DONE_PART]}
SEARCH = {"type": "web_search_call", "id": "ws_up", "status": "completed", "action": {"type": "search", "query": "q"}}
BASE = new_response("resp_up", 1.0, {"model": "theirs", "store": False}, "in_progress")


def sent(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {orjson.dumps({'type': kind, **fields}).decode()}\n\n"


CREATED = sent("response.created", response=BASE)
COMPLETED = sent("response.completed", response={**BASE, "status": "completed", "output": [DONE_ITEM, SEARCH]})
ANSWER = (
    CREATED,
    sent("response.output_item.added", output_index=0, item=ITEM),
    sent("response.content_part.added", **PLACE, part=PART),
    sent("response.output_text.delta", **PLACE, delta="found", logprobs=[]),
    sent("response.output_text.done", **PLACE, text="found", logprobs=[]),
    sent("response.content_part.done", **PLACE, part=DONE_PART),
    sent("response.output_item.done", output_index=0, item=DONE_ITEM),
    sent("response.output_item.added", output_index=1, item=SEARCH),
    sent("response.output_item.done", output_index=1, item=SEARCH),
    COMPLETED,
)


class Scripted:
    """Play an upstream that serves one endpoint. After the parts of an answer it waits for its client to go.

    `answers` are played one after another, and the last one again and again.
    """

    def __init__(self, path: str, *answers: tuple[str, ...], status: str = "200 OK") -> None:
        self.path, self.answers, self.status = path, [*answers], status
        self.upstream = Upstream(self.play)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The bodies of the calls that were no questions of the worker's."""
        return [exchange.body for exchange in self.upstream.exchanges if "model" in exchange.body]

    async def play(self, exchange: Exchange) -> None:
        if exchange.path.endswith(self.path) and "model" in exchange.body:
            await exchange.head(self.status)
            parts = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            for part in parts:
                await exchange.send(part)
            if parts[-1] in (DONE, COMPLETED) or self.status != "200 OK":
                await exchange.end()
            elif parts[-1] == CREATED:
                exchange.writer.close()
            return
        known = exchange.path.endswith(("/models", self.path))
        status = "200 OK" if exchange.path.endswith("/models") else "400 Bad Request" if known else "404 Not Found"
        await exchange.head(status, kind="application/json")
        await exchange.send('{"object":"list","data":[{"id":"m"}]}' if known else '{"detail":"Not Found"}')
        await exchange.end()


@asynccontextmanager
async def before(upstream: Scripted, settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    """Run two frontends and a worker in front of an upstream."""
    port = free_port()
    upstream.upstream.url = f"http://127.0.0.1:{port}/v1"
    server = await asyncio.start_server(upstream.upstream.serve, "127.0.0.1", port)
    try:
        async with running(settings, directory, frontends=2, workers=0) as cluster:
            await cluster.worker("m", "openai", openai_base_url=upstream.upstream.url)
            yield cluster
    finally:
        server.close()
        for exchange in upstream.upstream.exchanges:
            exchange.writer.close()


async def test_a_cancel_at_the_other_replica_closes_the_upstreams_connection(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    upstream = Scripted(CHAT, (chunk("a"), chunk("b")))
    async with before(upstream, make_settings(), tmp_path) as cluster:
        taker, other = cluster.frontends
        async with sdk_of(taker) as here, sdk_of(other) as there:
            begun = await here.responses.create(model="m", input=TEXT, background=True)

            async def half() -> bool:
                return (await here.responses.retrieve(begun.id)).output_text == "ab"

            await wait_until(half)
            upstream.upstream.client_left.clear()
            cancelled = await there.responses.cancel(begun.id)
            assert (cancelled.status, cancelled.output_text) == ("cancelled", "ab")
            await within_bound(upstream.upstream.client_left)
            assert [exchange.path for exchange in upstream.upstream.left][-1] == "/v1/chat/completions"
    messages = [{"role": "user", "content": TEXT}]
    sent = {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    assert upstream.calls == [sent]


async def test_an_upstreams_answer_and_its_refusal_reach_the_client(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    parts = (
        chunk(None, delta={"role": "assistant", "reasoning": "hm"}),
        chunk(None, delta={"tool_calls": [call]}),
        chunk(None, delta={}, finish_reason="tool_calls"),
    )
    upstream = Scripted(CHAT, (*parts, USAGE, DONE))
    async with before(upstream, make_settings(), tmp_path) as cluster, sdk_of(cluster.frontends[1]) as sdk:
        answer = await sdk.responses.create(model="m", input=TEXT, tools=[WEATHER])
        assert [item.type for item in answer.output] == ["reasoning", "function_call"]
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
        upstream.answers, upstream.status = [('{"error":{"message":"slow down","type":"t","code":"c"}}',)], "429 Slow"
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.responses.create(model="m", input=TEXT)
        assert (raised.value.type, raised.value.code) == ("t", "c")


async def test_an_upstream_that_serves_the_endpoint_gets_the_call_as_it_is(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    """It may have built-in tools, and what it continues is put before its input."""
    upstream = Scripted(RESPONSES, ANSWER)
    tools: Any = [{"type": "web_search"}]
    async with before(upstream, make_settings(), tmp_path) as cluster:
        async with sdk_of(cluster.frontends[0]) as here, sdk_of(cluster.frontends[1]) as there:
            first = await here.responses.create(model="m", input=TEXT, tools=tools)
            assert (first.output_text, first.output[1].type) == ("found", "web_search_call")
            assert (first.model, first.to_dict()["store"]) == ("m", True)
            stream = await there.responses.create(model="m", input="on", previous_response_id=first.id, stream=True)
            events = await all_of(stream)
        assert numbers(events) == list(range(len(ANSWER)))
        assert {event.response.id for event in events if event.type == "response.created"} != {"resp_up"}
    asked, continued = upstream.calls
    given = {"model": "m", "stream": True, "store": False, "background": False}
    assert asked == {**given, "input": TEXT, "tools": tools}
    assert continued == {**given, "input": continued["input"]}
    assert [item.get("type") for item in continued["input"]][-3:] == ["message", "web_search_call", "message"]


async def test_an_upstream_that_breaks_off_behind_the_opening_is_asked_again(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    upstream = Scripted(RESPONSES, (CREATED,), ANSWER)
    async with before(upstream, make_settings(), tmp_path) as cluster, sdk_of(cluster.frontends[0]) as sdk:
        await cluster.worker("m", "openai", openai_base_url=upstream.upstream.url)
        events = await all_of(await sdk.responses.create(model="m", input=TEXT, stream=True))
        assert numbers(events) == list(range(len(ANSWER)))
        assert [event.type for event in events].count("response.created") == 1
        assert events[-1].type == "response.completed"
        assert (await cluster.record(events[-1].response.id))["attempt"] == 2

"""The client gets what a worker reports: structured events, usage, and errors with their HTTP status.

The test itself is the worker, so that it decides what comes when.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from lifecycle.store.connect import Connections
from lifecycle.store.results import Append, Outcome, Run
from lifecycle.types import ErrorDetail, Role
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.joining import join
from tests.unit.world import MODEL, World
from tests.waiting import wait_until

USAGE = {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23, "prompt_tokens_details": {"cached_tokens": 1}}
TOOL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
EVENTS: list[Any] = [
    "thin",
    "king",
    {"choices": [{"index": 0, "delta": {"tool_calls": [TOOL]}, "finish_reason": None}], "token_ids": []},
    {"choices": [{"index": 1, "delta": {"reasoning": "hm"}, "logprobs": {"content": []}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "system_fingerprint": "x"},
]
DONE = Outcome("completed", finish_reason="tool_calls", usage=USAGE, content_events=5)


class Bench:
    """One frontend, and a worker that the test plays."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self.cluster = cluster
        self.world = world
        self.url = cluster.frontends[0].url

    async def join(self, *accepts: str) -> None:
        await join(self.world.store, "w0", Role.WORKER, {"models": [MODEL], "accepts": accepts}, [MODEL])

    def call(self, **fields: Any) -> asyncio.Task[httpx2.Response]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}
        return asyncio.create_task(self.cluster.http.post(self.url + "/v1/chat/completions", json=body))

    async def start(self) -> str:
        """Take the next request and begin it. Return its id."""
        found: list[Run] = []

        async def taken() -> bool:
            try:
                found.append(await self.world.take())
            except AssertionError:
                return False
            return True

        await wait_until(taken, what="a request")
        return found[0].rid

    async def yields(self, rid: str, events: Sequence[Any], last: int) -> None:
        entry = Append(rid, 1, last, orjson.dumps(list(events)), last == len(events))
        assert await self.world.store.append(0, "w0", [entry]) == []

    async def answer(self, rid: str) -> None:
        await self.yields(rid, EVENTS, len(EVENTS))
        await self.world.finish(len(EVENTS), rid=rid, outcome=DONE)


@asynccontextmanager
async def opened(make_settings: MakeSettings, tmp_path: Path, **overrides: Any) -> AsyncIterator[Bench]:
    settings = make_settings(**{"lease_secs": 30.0, "heartbeat_secs": 0.5, "headers_after_secs": 20.0, **overrides})
    async with running(settings, tmp_path, workers=0) as cluster, Connections.open(settings) as connections:
        world = World(connections.store)
        bench = Bench(cluster, world)
        await bench.join()
        yield bench


@pytest.fixture
async def bench(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(make_settings, tmp_path) as bench:
        yield bench


def frames(wire: bytes) -> list[tuple[str, Any]]:
    """(id, data) of each event; the data of the last is [DONE]."""
    found = []
    for block in wire.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            data = fields["data"]
            found.append((fields.get("id", ""), data if data == "[DONE]" else orjson.loads(data)))
    return found


async def test_a_stream_has_every_event_and_the_engines_usage(bench: Bench) -> None:
    call = bench.call(stream=True, stream_options={"include_usage": True})
    rid = await bench.start()
    await bench.answer(rid)
    response = await call
    events = frames(response.content)
    assert response.status_code == 200
    assert [name for name, _ in events] == [f"1-{n}" for n in range(1, 8)] + ["", ""]
    assert [data["choices"][0].get("finish_reason") for _, data in events[:7]][5:] == ["length", "tool_calls"]
    assert events[3][1]["choices"][0]["delta"] == {"role": "assistant", "reasoning": "hm"}
    assert (events[2][1]["token_ids"], events[6][1]["system_fingerprint"]) == ([], "x")
    assert (events[7][1]["usage"], events[7][1]["choices"], events[8][1]) == (USAGE, [], "[DONE]")
    record = await bench.cluster.record(rid)
    assert (record["usage"], record["output_tokens"], record["output_events"]) == (USAGE, 20, 5)

    async def counted() -> bool:
        return await bench.cluster.metric("lifecycle_output_tokens_total", model=MODEL) == 20

    await wait_until(counted, what="the engine's figure in the metrics")
    assert await bench.cluster.metric("lifecycle_input_tokens_total", model=MODEL) == 3
    assert await bench.cluster.metric("lifecycle_output_events_total", model=MODEL) == 5


async def test_a_stream_that_is_resumed_anywhere_has_the_same_bytes(bench: Bench) -> None:
    call = bench.call(stream=True)
    rid = await bench.start()
    await bench.yields(rid, EVENTS[:4], 4)
    await bench.yields(rid, EVENTS[4:], 7)
    await bench.world.finish(7, rid=rid, outcome=DONE)
    whole = (await call).content
    blocks = whole.split(b"\n\n")
    for number in range(7):
        url = f"{bench.url}/v1/requests/{rid}/stream?after=1-{number}"
        response = await bench.cluster.http.get(url)
        assert response.content.split(b"\n\n") == blocks[number:]


async def test_a_unary_answer_is_the_fold_of_the_events(bench: Bench) -> None:
    call = bench.call()
    await bench.answer(await bench.start())
    body = (await call).json()
    message = body["choices"][0]["message"]
    assert (message["content"], message["role"]) == ("thinking", "assistant")
    assert message["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert body["choices"][1]["message"]["reasoning"] == "hm"
    assert [choice["finish_reason"] for choice in body["choices"]] == ["tool_calls", "length"]
    assert (body["usage"], body["system_fingerprint"], body["token_ids"]) == (USAGE, "x", [])


STATUSES = [(s, s) for s in (400, 404, 408, 413, 422, 429, 500, 504)] + [(502, 503), (503, 503), (418, 500)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
async def test_an_error_before_the_first_event_is_an_http_error_with_the_upstreams_parts(
    bench: Bench, stream: bool
) -> None:
    for status, told in STATUSES:
        call = bench.call(stream=stream)
        rid = await bench.start()
        detail = ErrorDetail(status, "their_type", "their_code", "messages", 6.2)
        await bench.world.finish(rid=rid, outcome=Outcome("failed", "overload", "their words", detail=detail))
        response = await call
        assert (response.status_code, response.headers["retry-after"]) == (told, "7")
        assert response.json()["error"] == {
            "message": "their words",
            "type": "their_type",
            "code": "their_code",
            "param": "messages",
            "error_type": "overload",
            "request_id": rid,
        }


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
async def test_a_refusal_of_our_own_key_is_our_fault_and_not_to_be_repeated(bench: Bench, stream: bool) -> None:
    call = bench.call(stream=stream)
    rid = await bench.start()
    detail = ErrorDetail(401, "authentication_error", "invalid_api_key", None)
    await bench.world.finish(rid=rid, outcome=Outcome("failed", "internal", "the key is wrong", detail=detail))
    response = await call
    error = response.json()["error"]
    assert (response.status_code, response.headers["x-should-retry"]) == (500, "false")
    assert (error["type"], error["code"]) == ("internal_server_error", None)


async def test_an_error_after_the_first_event_is_a_frame_with_the_upstreams_parts(bench: Bench) -> None:
    call = bench.call(stream=True)
    rid = await bench.start()
    await bench.yields(rid, ["a"], 1)
    detail = ErrorDetail(503, "their_type", None, "messages", 6.0)
    await bench.world.finish(1, rid=rid, outcome=Outcome("failed", "unavailable", "their words", detail=detail))
    response = await call
    _, (_, error), (_, done) = frames(response.content)
    assert (response.status_code, done) == (200, "[DONE]")
    assert error["error"] == {
        "message": "their words",
        "type": "their_type",
        "code": 503,
        "param": "messages",
        "error_type": "unavailable",
        "request_id": rid,
    }
    reader = await bench.cluster.http.get(f"{bench.url}/v1/requests/{rid}/stream")
    assert reader.content == response.content


async def test_a_cancel_before_the_first_event_is_499(bench: Bench) -> None:
    call = bench.call(stream=True)
    rid = await bench.start()
    await bench.world.cancel(rid=rid)
    assert (await call).status_code == 499
    await bench.world.finish(rid=rid, outcome=Outcome("cancelled", "cancelled"))


async def test_a_disconnect_is_noticed_while_the_status_line_is_held(bench: Bench) -> None:
    call = bench.call(stream=True)
    rid = await bench.start()
    call.cancel()

    async def cancelled() -> bool:
        return (await bench.world.record(rid)).cancel_mode == "kill"

    await wait_until(cancelled, what="a cancel because of the disconnect")
    await bench.world.finish(rid=rid, outcome=Outcome("cancelled", "cancelled"))
    assert await bench.cluster.metric("lifecycle_client_disconnects_total") == 1


async def test_an_answer_without_an_event_begins_with_its_end(bench: Bench) -> None:
    call = bench.call(stream=True)
    await bench.world.finish(rid=await bench.start())
    response = await call
    (_, finish), (_, done) = frames(response.content)
    assert (response.status_code, finish["choices"][0]["finish_reason"], done) == (200, "stop", "[DONE]")


async def test_the_status_line_is_held_for_a_bounded_time(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Keepalives do not begin the response. A reader of the same request is answered at once."""
    async with opened(make_settings, tmp_path, headers_after_secs=1.5, sse_keepalive_secs=0.1) as bench:
        clock = asyncio.get_running_loop().time
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        asked_at = clock()
        holding = bench.cluster.http.stream("POST", bench.url + "/v1/chat/completions", json=body)
        opening = asyncio.create_task(holding.__aenter__())
        rid = await bench.start()
        async with bench.cluster.http.stream("GET", f"{bench.url}/v1/requests/{rid}/stream") as reader:
            assert (reader.status_code, opening.done()) == (200, False)
        response = await opening
        assert response.status_code == 200
        assert clock() - asked_at >= 1.5
        await bench.world.finish(
            rid=rid, outcome=Outcome("failed", "validation", "too long", detail=ErrorDetail(400, code="c"))
        )
        (_, error), (_, done) = frames(await response.aread())
        assert (error["error"]["code"], done) == ("c", "[DONE]")
        await holding.__aexit__(None, None, None)


async def test_a_gated_parameter_is_refused_until_a_worker_takes_it(bench: Bench) -> None:
    refused = await bench.call(tools=[{"type": "function"}], n=2)
    assert refused.status_code == 400
    assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("unsupported_parameter", "tools")
    assert await bench.cluster.metric("lifecycle_requests_started_total") == 0
    await bench.join("tools", "n")
    call = bench.call(tools=[{"type": "function"}], n=2)
    await bench.answer(await bench.start())
    assert (await call).status_code == 200

"""Upstreams that fail: what Anthropic's SDK raises, and what its stream ends with."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import orjson
import pytest

from tests.cluster import Cluster
from tests.integration.messages.client import call, sdk_for, streaming
from tests.integration.messages.upstreams import EVENTS_SENT, NATIVE, START, having, served, sse
from tests.upstream import Exchange, Serve
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        ("400 Bad Request", "invalid_request_error", anthropic.BadRequestError),
        ("413 Too Large", "request_too_large", anthropic.ContentTooLargeError),
        ("429 Too Many Requests", "rate_limit_error", anthropic.RateLimitError),
        ("500 Internal Server Error", "api_error", anthropic.InternalServerError),
        ("529 Overloaded", "overloaded_error", anthropic.InternalServerError),
        ("504 Gateway Timeout", "timeout_error", anthropic.InternalServerError),
    ],
)
async def test_an_upstreams_error_raises_the_sdks_exception(
    cluster: Cluster, serve: Serve, status: str, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer({"type": "error", "error": {"type": kind, "message": "the reason"}}, status)

    async with (
        served(cluster, serve, having(messages=refuse)),
        sdk_for(cluster.frontends[0].url, max_retries=0) as sdk,
    ):
        with pytest.raises(raised, match="the reason") as unary:
            await sdk.messages.create(**call("x", "m"))
        with pytest.raises(raised, match="the reason"):
            async with sdk.messages.stream(**call("x", "m")) as stream:
                await stream.get_final_message()
    body: Any = unary.value.body
    assert body["type"] == "error"
    assert body["error"] == {"type": kind, "message": "the reason"}
    assert body["request_id"] == unary.value.request_id


async def test_an_error_event_of_the_upstream(cluster: Cluster, serve: Serve) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with (
        served(cluster, serve, having(messages=sse(*EVENTS_SENT[:5], error))),
        streaming(cluster, call("x", "m")) as stream,
    ):
        events = await stream.read()
    rid = stream.response.headers["x-request-id"]
    assert events[-1].event == "error"
    assert events[-1].data == error | {"request_id": rid}
    assert (await cluster.record(rid))["status"] == "failed"


async def test_a_disconnect_closes_the_native_upstream(cluster: Cluster, serve: Serve) -> None:
    async with served(cluster, serve, having(messages=sse(*EVENTS_SENT[:10], finish=False))) as upstream:
        async with streaming(cluster, call("x", "m")) as stream:
            await stream.read_tokens(10)
        await wait_until(
            lambda: asyncio.sleep(0, any(e.path == "/v1/messages" and e.body for e in upstream.left)),
            what="the end of the upstream's connection",
        )
        rid = stream.response.headers["x-request-id"]

        async def cancelled() -> bool:
            return bool((await cluster.record(rid))["status"] == "cancelled")

        await wait_until(cancelled, what="the end of the request")


async def test_an_upstream_that_breaks_off_behind_its_opening_is_tried_elsewhere(
    cluster: Cluster, serve: Serve
) -> None:
    async def breaks(exchange: Exchange) -> None:
        await sse(START, {"type": "ping"}, finish=False)(exchange)
        exchange.writer.close()

    async with served(cluster, serve, having(messages=breaks)):
        async with streaming(cluster, call("x", "m")) as stream:
            body = orjson.loads(await stream.response.aread())
        assert stream.response.status_code == 503
        assert body["error"]["type"] == "overloaded_error"
        async with (
            served(cluster, serve, having(messages=NATIVE)),
            streaming(cluster, call("x", "m")) as stream,
        ):
            events = await stream.read()
    assert [event.data["type"] for event in events].count("message_start") == 1
    assert events[-1].event == "message_stop"

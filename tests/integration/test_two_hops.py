"""The system in front of itself: the `openai` engine's upstream is another instance's frontend, two hops deep."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until


class Hops(NamedTuple):
    outer: Cluster
    inner: Cluster

    async def inner_request(self) -> dict[str, object]:
        """The one request the outer worker has made of the inner cluster."""
        (record,) = (await self.inner.get("/v1/requests"))["data"]
        found: dict[str, object] = record
        return found


@pytest.fixture
async def hops(make_settings: MakeSettings, namespace: str, tmp_path: Path) -> AsyncIterator[Hops]:
    """Both use one Redis; the namespaces keep them apart."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "outer").mkdir()
    async with AsyncExitStack() as stack:
        inner_settings = make_settings(namespace=f"{namespace}-{secrets.token_hex(2)}", retention_secs=2.0)
        inner = await stack.enter_async_context(running(inner_settings, tmp_path / "inner"))
        outer_settings = make_settings(openai_base_url=inner.frontends[0].url + "/v1")
        outer = await stack.enter_async_context(running(outer_settings, tmp_path / "outer", frontends=2, workers=0))
        for model in ("echo", "raiser", "silent"):
            await outer.worker(model, "openai")
        yield Hops(outer, inner)


async def test_a_stream_passes_both_hops(hops: Hops) -> None:
    words = " ".join(f"w{n}" for n in range(20))
    body = chat(words, stream_options={"include_usage": True})
    async with post(hops.outer.http, hops.outer.frontends[0].url, body) as stream:
        events = await stream.read()
    assert text_of(events) == words
    assert error_of(events) is None
    assert events[-2].data["usage"] == {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40}
    inner = await hops.inner_request()
    assert (inner["status"], inner["output_tokens"]) == ("completed", 20)


async def test_the_upstreams_error_reaches_the_client_in_its_words(hops: Hops) -> None:
    await hops.inner.worker("raiser", "tests.engines:three_then_raise")
    async with post(hops.outer.http, hops.outer.frontends[0].url, chat("out of memory", "raiser")) as stream:
        events = await stream.read()
    error = error_of(events)
    assert text_of(events) == "one two three"
    assert error is not None
    assert (error["message"], error["type"], error["code"]) == ("out of memory", "internal_server_error", 500)


async def test_an_upstream_that_refuses_is_an_error_in_its_words(hops: Hops) -> None:
    async with post(hops.outer.http, hops.outer.frontends[0].url, chat("1", "silent")) as stream:
        error = error_of(await stream.read())
    assert error is not None
    assert "'silent' does not exist" in error["message"]


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
async def test_an_end_at_the_outer_hop_ends_the_inner_one(hops: Hops, how: str) -> None:
    a, b = hops.outer.frontends
    async with post(hops.outer.http, a.url, chat("x", echo_repeat=100_000), X_Request_Id="r1") as stream:
        await stream.read_tokens(3)
        if how == "cancel":
            answer = await hops.outer.http.post(b.url + "/v1/requests/r1/cancel", json={"wait_ms": 9000})
            assert answer.status_code == 200
            error = error_of(await stream.read())
            assert error is not None
            assert error["error_type"] == "cancelled"

    async def both_cancelled() -> bool:
        outer = await hops.outer.record("r1")
        return outer["status"] == "cancelled" and (await hops.inner_request())["status"] == "cancelled"

    await wait_until(both_cancelled)
    assert await hops.outer.inflight() == await hops.inner.inflight() == 0


async def test_a_silent_upstream_is_given_up(hops: Hops) -> None:
    await hops.inner.worker("silent", "tests.engines:silent")
    await hops.outer.worker("quiet", "openai", backend_stream_timeout_secs=1)
    await hops.inner.worker("quiet", "tests.engines:silent")
    async with post(hops.outer.http, hops.outer.frontends[0].url, chat("2", "quiet")) as stream:
        events = await stream.read()
    error = error_of(events)
    assert text_of(events) == "0 1 "
    assert error is not None
    assert error["error_type"] == "response_timeout"

    async def inner_ended() -> bool:
        return await hops.inner.inflight() == 0

    await wait_until(inner_ended)

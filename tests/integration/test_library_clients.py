"""Clients over Redis and over HTTP, with and without asyncio, have the same methods and return the same records."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import lifecycle
from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.library import Source, connect, given
from tests.waiting import wait_until

KINDS = ("redis", "http")


def arguments(kind: str, cluster: Cluster) -> dict[str, Any]:
    return {"url": cluster.frontends[0].url} if kind == "http" else given(cluster.settings)


@pytest.fixture
async def cluster(settings: Settings, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(settings, tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", KINDS)
async def test_an_async_client_sees_and_cancels_what_is_tracked(cluster: Cluster, kind: str) -> None:
    source = Source(pause_secs=0.005)
    async with (
        connect(cluster.settings) as tracker,
        lifecycle.AsyncClient(**arguments(kind, cluster)) as client,
        await tracker.track(source.events(), model="m", owner="acme", labels={"team": "a"}) as run,
    ):
        assert (await client.inflight()).running == 1
        assert (await client.inflight(model="other")).total == 0
        record = await client.get(run.id)
        assert (record.status, record.owner, record.labels) == ("running", "acme", {"team": "a"})
        assert [found.id for found in await client.requests(status="running", endpoint="agent")] == [run.id]
        assert await client.requests(model="other") == []
        assert {replica.role for replica in await client.replicas()} == {"frontend", "worker"}

        got, last = [], None
        async for at, event in client.events(run.id):
            got.append(event)
            last = at
            if event == 10:
                break
        async for event in client.stream(run.id, after=last):
            got.append(event)
            if event == 20:
                break
        assert got == list(range(1, 21))

        dry = await client.cancel_many(model="m", dry_run=True)
        assert (dry.matched, dry.requested, [found.id for found in dry.records]) == (1, 0, [run.id])
        cancelled = await client.cancel(run.id, reason="enough", wait_secs=5)
        assert (cancelled.status, cancelled.cancel_reason) == ("cancelled", "enough")
        with pytest.raises(lifecycle.RequestFailed, match="enough"):
            async for _ in client.stream(run.id, after=last):
                pass
        assert (await client.cancel_many(status="inflight")).matched == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_are_those_of_the_tree(cluster: Cluster, kind: str) -> None:
    async with lifecycle.AsyncClient(**arguments(kind, cluster)) as client:
        with pytest.raises(lifecycle.NotFound, match="none"):
            await client.get("none")
        with pytest.raises(lifecycle.NotFound):
            await client.cancel("none")
        with pytest.raises(lifecycle.NotFound):
            async for _ in client.stream("none"):
                pass
        for wrong in (
            client.get("not an id"),
            client.cancel("r", mode="x"),
            client.cancel("r", wait_secs=-1),
            client.cancel("r", wait_secs=float("nan")),
            client.cancel("r", wait_secs=10**400),
            client.cancel_many(),
            client.requests("x"),
        ):
            with pytest.raises(lifecycle.InvalidValue):
                await wrong
        with pytest.raises(ValueError, match="position"):
            await anext(client.events("r", after="7"))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_malformed_selects_and_cancels_nothing(cluster: Cluster, kind: str) -> None:
    wrong: tuple[tuple[str, dict[str, Any]], ...] = (
        ("dry_run", {"status": "inflight", "dry_run": "true"}),
        ("dry_run", {"status": "inflight", "dry_run": 1}),
        ("status", {"status": "bogus"}),
        ("model", {"model": 5}),
        ("endpoint", {"endpoint": "No!"}),
        ("older_than_secs", {"older_than_secs": "60"}),
        ("older_than_secs", {"older_than_secs": True}),
        ("older_than_secs", {"older_than_secs": float("nan")}),
        ("reason", {"status": "inflight", "reason": "x" * 1025}),
    )
    async with (
        connect(cluster.settings) as tracker,
        lifecycle.AsyncClient(**arguments(kind, cluster)) as client,
        await tracker.track(Source(pause_secs=0.005).events(), model="m") as run,
    ):
        for param, fields in wrong:
            with pytest.raises(lifecycle.InvalidValue) as refused:
                await client.cancel_many(**fields)
            assert refused.value.param == param
        for listed in ({"status": "bogus"}, {"endpoint": "No!"}, {"model": 5}):
            with pytest.raises(lifecycle.InvalidValue):
                await client.requests(**listed)
        assert (await client.get(run.id)).status == "running"


async def test_a_client_without_a_cluster_says_so(settings: Settings) -> None:
    for client in (
        lifecycle.AsyncClient("http://127.0.0.1:1"),
        lifecycle.AsyncClient(redis_url="redis://127.0.0.1:1", redis_timeout_secs=0.5),
    ):
        async with client:
            with pytest.raises(lifecycle.Unavailable):
                await client.inflight()
    with pytest.raises(lifecycle.InvalidSetting, match="no_such"):
        lifecycle.Client(no_such=1)
    with pytest.raises(lifecycle.InvalidSetting, match="NAMESPACE"):
        lifecycle.Client(namespace="a b")
    with pytest.raises(lifecycle.InvalidValue, match="URL"):
        lifecycle.AsyncClient("localhost:8000")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_plain_client_works_inside_a_running_loop_and_in_threads(cluster: Cluster, kind: str) -> None:
    async with connect(cluster.settings) as tracker:
        run = await tracker.track(Source(50).events(), model="m", on_disconnect="continue")
        assert [event async for event in run] == list(range(1, 51))
        with lifecycle.Client(**arguments(kind, cluster)) as client:
            assert client.get(run.id).status == "completed"  # the loop of this test waits meanwhile
            assert client.inflight().total == 0
            assert [found.id for found in client.requests(endpoint="agent")] == [run.id]
            assert list(client.stream(run.id)) == list(range(1, 51))
            events = client.events(run.id, after="1-48")
            assert next(events) == ("1-49", 49)
            events.close()
            seen: list[Any] = []
            threads = [threading.Thread(target=lambda: seen.append(client.get(run.id).id)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert seen == [run.id] * 8
        with pytest.raises(lifecycle.Unavailable, match="closed"):
            client.inflight()


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_the_plain_client_ends_a_stream_that_a_thread_reads(cluster: Cluster, kind: str) -> None:
    source = Source(pause_secs=0.01)
    async with connect(cluster.settings) as tracker, await tracker.track(source.events(), model="m") as run:
        client, got = lifecycle.Client(**arguments(kind, cluster)), list[Any]()
        reading = asyncio.create_task(asyncio.to_thread(lambda: got.extend(client.stream(run.id))))
        await wait_until(lambda: got, what="an event")
        await asyncio.to_thread(client.close)
        with pytest.raises(lifecycle.Unavailable, match="closed"):
            await asyncio.wait_for(reading, 10)


async def test_the_first_calls_of_a_client_may_come_together(cluster: Cluster) -> None:
    client = lifecycle.AsyncClient(**given(cluster.settings))
    counts = await asyncio.gather(*(client.inflight() for _ in range(10)))
    assert {count.total for count in counts} == {0}
    await client.aclose()
    await client.aclose()


async def test_both_return_the_same(cluster: Cluster) -> None:
    async with (
        connect(cluster.settings) as tracker,
        lifecycle.AsyncClient(**given(cluster.settings)) as redis,
        lifecycle.AsyncClient(cluster.frontends[0].url) as http,
    ):
        run = await tracker.submit({"model": "echo", "messages": [{"role": "user", "content": "one two three"}]})
        assert "".join([event async for event in run]).split() == ["one", "two", "three"]
        assert await redis.get(run.id) == await http.get(run.id)
        assert await redis.requests() == await http.requests()
        over = [[item async for item in client.events(run.id)] for client in (redis, http)]
        assert over[0] == over[1]
        assert (await redis.inflight()).total == (await http.inflight()).total == 0
        shown = [{r.id: (r.role, r.models, r.url) for r in await client.replicas()} for client in (redis, http)]
        assert shown[0] == shown[1]


async def test_a_submitted_call_has_a_usage_chunk_over_http_if_it_asks_for_one(cluster: Cluster) -> None:
    call = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
    url = f"{cluster.frontends[0].url}/v1/requests"
    async with connect(cluster.settings) as tracker, httpx.AsyncClient(timeout=30) as client:
        for options in (None, "nonsense", {}, {"include_usage": False}, {"include_usage": True}):
            async with await tracker.submit({**call, "stream_options": options}) as run:
                answer = await client.get(f"{url}/{run.id}/stream")
            figures = re.findall(r'"completion_tokens":(\d+)', answer.text)
            assert figures == (["3"] if options == {"include_usage": True} else [])


async def test_a_stream_over_http_goes_on_at_another_frontend(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, workers=0) as cluster, connect(settings) as tracker:
        source = Source(pause_secs=0.01)
        async with (
            await tracker.track(source.events(), model="m") as run,
            lifecycle.AsyncClient(cluster.frontends[0].url) as client,
        ):
            url = cluster.frontends[0].url
            events = client.stream(run.id)
            got = [await anext(events) for _ in range(5)]
            await cluster.frontends[0].kill()
            reading = asyncio.create_task(anext(events))
            again = await cluster.frontend_at(url)
            assert again.url == url
            got.append(await asyncio.wait_for(reading, 30))
            got += [await anext(events) for _ in range(5)]
            assert got == list(range(1, 12))
            await events.aclose()
        await wait_until(source.closed.is_set)

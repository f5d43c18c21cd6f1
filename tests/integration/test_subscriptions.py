"""The subscription link when the network does not say that it is broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from lifecycle.aio import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.link import PushLink
from lifecycle.store.listener import ConnectionFactory
from lifecycle.store.pubsub import Message, Subscriptions
from lifecycle.store.redis import make_client
from lifecycle.store.transitions import Store
from tests.chaos.proxy import FaultProxy, Then
from tests.cluster import running
from tests.sse import chat, post
from tests.waiting import wait_until


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def subscriptions(proxy: FaultProxy) -> AsyncIterator[Subscriptions]:
    client = make_client(proxy.url, socket_timeout_secs=0.5)

    async def same() -> Redis:
        return client

    subscriptions = Subscriptions(ConnectionFactory(same, 0.5, set()))
    running = asyncio.create_task(subscriptions.run())
    yield subscriptions
    await tasks.end((running,))
    await client.aclose()


async def test_a_link_that_is_open_on_one_side_only_is_rebuilt(
    store: Store, namespace: str, proxy: FaultProxy, subscriptions: Subscriptions
) -> None:
    """All that is sent is lost, and no answer comes. The connection itself reports no error."""
    messages: list[Message] = []
    gaps: list[str] = []
    first, second = f"{namespace}:first", f"{namespace}:second"
    await subscriptions.subscribe(first, messages.append, lambda: gaps.append(first))
    rule = proxy.on_request(second.encode(), Then.LOSE)
    with pytest.raises(StoreUnavailable):
        await subscriptions.subscribe(second, messages.append, lambda: gaps.append(second))
    await rule.fired()
    await wait_until(lambda: gaps == [first], timeout=20, what="a rebuilt link")
    await subscriptions.subscribe(second, messages.append, lambda: gaps.append(second))
    await store.command("PUBLISH", second, b'{"n":1}')
    await store.command("PUBLISH", first, b'{"n":2}')
    await wait_until(lambda: messages == [{"n": 1}, {"n": 2}])


async def test_a_quiet_link_is_left_alone(
    namespace: str, proxy: FaultProxy, subscriptions: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = 0
    send = PushLink.send

    def noted(self: PushLink, *args: str) -> None:
        nonlocal probes
        probes += args == ("PING",)
        send(self, *args)

    monkeypatch.setattr(PushLink, "send", noted)
    monkeypatch.setattr("lifecycle.store.listener.PROBE_SECS", 0.02)
    gaps: list[str] = []
    await subscriptions.subscribe(f"{namespace}:quiet", lambda _: None, lambda: gaps.append("gap"))
    await wait_until(lambda: probes > 3, what="three probes behind that of the greeting")
    assert not gaps
    assert proxy.links == 1


async def test_the_status_of_each_connection_is_published_under_its_request(settings: Settings, tmp_path: Path) -> None:
    told: dict[str, list[Message]] = {"whole": [], "left": []}
    async with Connections.open(settings) as connections, running(settings, tmp_path, workers=0) as cluster:
        listening = asyncio.create_task(connections.subscriptions.run())
        await cluster.worker("m", "tests.engines:paced")
        for rid, messages in told.items():
            channel = connections.store.keys.channel(rid)
            await connections.subscriptions.subscribe(channel, messages.append, lambda: None)
        url = cluster.frontends[0].url
        async with post(cluster.http, url, chat("3 0.01", "m"), X_Request_Id="whole") as stream:
            await stream.read()
        async with post(cluster.http, url, chat("500 0.02", "m"), X_Request_Id="left") as stream:
            await stream.read_tokens(1)
        for rid, status in (("whole", "closed_gracefully"), ("left", "closed_unexpectedly")):
            expected = {"type": "connection", "status": status}

            def arrived(rid: str = rid, expected: dict[str, str] = expected) -> bool:
                return expected in told[rid]

            await wait_until(arrived, what=f"the status of {rid}")
            assert [message["type"] for message in told[rid]].count("connection") == 1
        await tasks.end((listening,))

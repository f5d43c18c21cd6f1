"""A Redis whose disk is full refuses every write with MISCONF until its next save works. That is a Redis that is away.

Admission answers 503 with Retry-After, `/ready` says so, streams wait and end with [DONE] when it takes longer than two
leases, and everything is well again by itself.
Source: OptimalBits/bull#540, pulibrary/dpul#1471, rq/rq#1980, redis/redis#584.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.known_faults.reports.kit import chat, within
from tests.servers import ask
from tests.sse import error_of, post, text_of
from tests.waiting import wait_until

LEASE_SECS = 1.5
WORDS = "word " * 40  # two seconds of the echo engine


class Disk:
    """The directory into which a Redis saves; without it each save fails, as on a full disk."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._path = path
        config = {"dir": str(path), "save": "3600 1", "enable-protected-configs": "local"}
        self.redis = EmbeddedRedis(config=config)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Have a Redis that refuses writes; behind it is one that takes them again."""
        await self._fill()
        try:
            yield
        finally:
            await self._empty()

    async def _fill(self) -> None:
        shutil.rmtree(self._path)
        ask(self.redis, "BGSAVE")
        await wait_until(lambda: "MISCONF" in self._answer(), what="a Redis that refuses writes")

    async def _empty(self) -> None:
        self._path.mkdir()
        ask(self.redis, "CONFIG", "SET", "dir", str(self._path))
        ask(self.redis, "BGSAVE")
        await wait_until(lambda: self._answer() == "True", what="a Redis that takes writes")

    def _answer(self) -> str:
        try:
            return str(ask(self.redis, "SET", "test:probe", "1", "PX", "60000") in (True, "OK"))
        except RedisError as refused:
            return str(refused)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    with disk.redis:
        yield disk


@pytest.fixture
async def cluster(disk: Disk, tmp_path: Path) -> AsyncIterator[Cluster]:
    values: dict[str, Any] = {
        "redis_url": disk.redis.url,
        "heartbeat_secs": 0.25,
        "lease_secs": LEASE_SECS,
        "sweep_secs": 0.25,
        "drain_timeout_secs": 1.0,
        "echo_tokens_per_sec": 20.0,
    }
    async with running(Settings(**values), tmp_path) as cluster:
        yield cluster


async def serves(cluster: Cluster) -> bool:
    url = cluster.frontends[0].url + "/v1/chat/completions"
    return (await cluster.http.post(url, json=chat("echo", "hi"))).status_code == 200


async def test_every_call_says_that_redis_is_away(cluster: Cluster, disk: Disk) -> None:
    url = cluster.frontends[0].url

    async def not_ready() -> str:
        answer = await cluster.http.get(url + "/ready")
        return answer.text if answer.status_code == 503 else ""

    async with disk.full():
        refused = await cluster.http.post(url + "/v1/chat/completions", json=chat("echo"))
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert refused.headers.get("x-should-retry") != "false"
        assert "MISCONF" in await wait_until(not_ready, timeout=LEASE_SECS, what="a frontend that is not ready")
    await wait_until(lambda: serves(cluster), what="a cluster that serves again")


async def test_an_open_stream_waits_for_a_redis_that_refuses_writes_for_a_moment(cluster: Cluster, disk: Disk) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("echo", WORDS, stream=True)) as stream:
        await stream.read_tokens(2)
        async with disk.full():
            pass
        events = await within(10, stream.read(), "the stream")
    assert error_of(events) is None
    assert text_of(events).split() == WORDS.split()


@pytest.mark.slow
async def test_a_long_outage_ends_the_stream_and_heals_by_itself(cluster: Cluster, disk: Disk) -> None:
    processes = [*cluster.frontends, *cluster.workers]
    async with post(cluster.http, cluster.frontends[0].url, chat("echo", WORDS * 10, stream=True)) as stream:
        await stream.read_tokens(2)
        async with disk.full():
            events = await within(3 * LEASE_SECS, stream.read(), "a stream whose Redis is away")
    assert error_of(events) is not None
    await wait_until(lambda: serves(cluster), what="a cluster that serves again")
    assert [process.process.returncode for process in processes] == [None, None]
    assert [process.log.read_text().count("Traceback") for process in processes] == [0, 0]

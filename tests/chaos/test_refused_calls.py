"""Clients repeat calls that are refused, and everybody else's calls must not become slower by them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.types import Role
from tests.admitting import admit
from tests.chaos.faults import Healing
from tests.cluster import Cluster, running
from tests.servers import ask, info
from tests.sse import chat
from tests.waiting import wait_until

_LIMIT = 200
_REPLICAS = 200
_CALLS = 50
_BYTES_PER_CALL = 10_000  # one look at so many requests, or a roster of so many replicas, has more than 30,000
_ABOUT = {"host": "host.test", "pid": 1, "started_at": 1.0, "version": "1", "state": "ready", "models": ["m"]}


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as server:
        yield server


def _settings(server: EmbeddedRedis, **overrides: Any) -> Settings:
    """Return settings under which hardly anything but calls reaches Redis."""
    return Settings(
        redis_url=server.url,
        lease_secs=600.0,
        heartbeat_secs=60.0,
        sweep_secs=60.0,
        headers_after_secs=0.0,
        **overrides,
    )


def _bytes_moved(server: EmbeddedRedis) -> int:
    stats = info(server, "stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


async def _cost(cluster: Cluster, server: EmbeddedRedis, model: str, status: int, healing: Healing) -> float:
    """Return how many bytes Redis moves for one call that is refused with this status."""
    url = cluster.frontends[0].url + "/v1/chat/completions"
    before = _bytes_moved(server)
    healing.begins()
    answers = await asyncio.gather(*(cluster.http.post(url, json=chat("x", model)) for _ in range(_CALLS)))
    healing.is_over()
    assert {answer.status_code for answer in answers} == {status}
    return (_bytes_moved(server) - before) / _CALLS


@pytest.mark.fault(
    "An owner at its limit of requests makes 50 further calls at once.",
    "Each is answered 429, and Redis moves at most 10,000 bytes for it, however high the limit is.",
)
async def test_an_owner_at_its_limit(server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    key, kept = new_key("acme", KeyRole.CLIENT, _LIMIT)
    keys = tmp_path / "keys"
    keys.write_text(f"{kept.line}\n")
    # With a short lease, the time for the admissions is over before the measurement, so their slots may be examined.
    settings = _settings(server, api_keys=str(keys), queue_without_workers=True)
    settings = settings.model_copy(update={"lease_secs": 4.0, "heartbeat_secs": 1.0, "sweep_secs": 4.0})
    async with open_store(settings) as store:
        await store.heartbeat("worker-1", Role.WORKER, _ABOUT, ["m"])
    bearer = {"Authorization": f"Bearer {key}"}
    async with running(settings, tmp_path, workers=0, headers=bearer) as cluster:
        url = cluster.frontends[0].url + "/v1/chat/completions"

        async def begin() -> None:
            async with cluster.http.stream(
                "POST", url, json=chat("x", "m"), headers={"X-On-Disconnect": "continue"}
            ) as answer:
                assert answer.status_code == 200

        await asyncio.gather(*(begin() for _ in range(_LIMIT)))
        await wait_until(lambda: _is_past(server, "quota_slots:acme"), 30.0, "slots whose time is over")
        assert await _cost(cluster, server, "m", 429, healing) <= _BYTES_PER_CALL


def _is_past(server: EmbeddedRedis, name: str) -> bool:
    """Return whether every time in a sorted set of one of the shards is over."""
    (key,) = ask(server, "KEYS", f"*:{name}")
    _, latest = ask(server, "ZRANGE", key, -1, -1, "WITHSCORES")
    return float(latest) < float(ask(server, "TIME")[0])


@pytest.mark.fault(
    "50 calls at once name a model that nobody serves, beside 200 replicas.",
    "Each is answered 404, and Redis moves at most 10,000 bytes for it, however many replicas there are.",
)
async def test_an_unknown_model(server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    settings = _settings(server)
    async with open_store(settings) as store:
        for number in range(_REPLICAS):
            await store.heartbeat(f"worker-{number:012x}", Role.WORKER, _ABOUT, ["m"])
    async with running(settings, tmp_path, workers=0) as cluster:
        assert await _cost(cluster, server, "nobody-serves-this", 404, healing) <= _BYTES_PER_CALL


@pytest.mark.fault(
    "An owner lists its requests, of which it has none, beside 1,000 of others.",
    "No record of the others is read.",
)
async def test_a_listing_of_nothing(server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    settings = _settings(server)
    async with open_store(settings) as store, running(settings, tmp_path, workers=0) as cluster:
        await asyncio.gather(*(admit(store, f"r{number}", owner="others") for number in range(1000)))
        ask(server, "CONFIG", "RESETSTAT")
        healing.begins()
        answer = await cluster.http.get(cluster.frontends[0].url + "/v1/requests", params={"owner": "acme"})
        healing.is_over()
        assert (answer.status_code, answer.json()["data"]) == (200, [])
        stats = info(server, "commandstats")
        assert not {"cmdstat_hgetall", "cmdstat_hmget"} & stats.keys()

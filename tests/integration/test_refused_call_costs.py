"""A refused call costs Redis no more than an ordinary request, whatever it is refused for and however much waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.types import Labels, Role
from tests.admitting import admit
from tests.cluster import Cluster, running
from tests.conformance.calls import send
from tests.servers import ask, info
from tests.sse import chat

CALLS = 40
WAITING = 500  # requests of others for the model that is asked for, and as many that have ended
LIMIT = 3
ABOUT = {"host": "host.test", "pid": 1, "started_at": 1.0, "version": "1", "state": "ready", "models": ["full"]}
LABELS = Labels("full", "chat_completions", "unary")
FULL = chat("x", "full", stream=False)

# What is refused: the call's headers (`as` names its key), its body, and the status.
REFUSALS: dict[str, tuple[dict[str, str], dict[str, Any], int]] = {
    "no key": ({"Authorization": "Bearer no"}, FULL, 401),
    "inflight limit": ({"as": "limited"}, FULL, 429),
    "inflight limit, own id": ({"as": "limited", "X_Request_Id": "new"}, FULL, 429),
    "queue full": ({"as": "queueing"}, FULL, 503),
    "queue full, own id": ({"as": "queueing", "X_Request_Id": "new"}, FULL, 503),
    "queue full, idempotent": ({"as": "queueing", "Idempotency_Key": "new"}, FULL, 503),
    "known id": ({"as": "queueing", "X_Request_Id": "others-1"}, FULL, 409),
    "unknown model": ({"as": "queueing"}, chat("x", "nobody-serves-this"), 404),
    "unknown parent": ({"as": "free", "X_Parent_Request_Id": "nobody"}, FULL, 404),
}


class Bench(NamedTuple):
    cluster: Cluster
    server: EmbeddedRedis
    bearers: dict[str, dict[str, str]]

    async def commands(self, count: int, status: int, body: dict[str, Any], headers: dict[str, str]) -> float:
        """Return how many commands Redis executes for one of these calls, inside scripts too, and check its status."""
        headers = {name: value for name, value in headers.items() if name != "as"} | self.bearers.get(
            headers.get("as", ""), {}
        )
        ask(self.server, "CONFIG", "RESETSTAT")
        answers = [await send(self.cluster, body, None, **headers) for _ in range(count)]
        assert {answer.status_code for answer in answers} == {status}, answers[0].text
        stats = info(self.server, "commandstats").items()
        calls = {name: int(dict(pair.split("=") for pair in values.split(","))["calls"]) for name, values in stats}
        return sum(number for name, number in calls.items() if "config" not in name and "info" not in name) / count


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as server:
        yield server


@pytest.fixture(params=[1, 4], ids=["1 shard", "4 shards"])
async def bench(request: pytest.FixtureRequest, server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Bench]:
    limits = {"limited": LIMIT, "queueing": 0, "free": 0}
    made = {name: new_key(name, KeyRole.OPERATOR, limit) for name, limit in limits.items()}
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{kept.line}\n" for _, kept in made.values()))
    settings = Settings(
        redis_url=server.url,
        shards=request.param,
        api_keys=str(keys),
        queue_limit=WAITING,
        queue_without_workers=True,
        lease_secs=600.0,
        heartbeat_secs=60.0,
        sweep_secs=60.0,
        headers_after_secs=0.0,
    )
    async with open_store(settings) as store:
        await store.heartbeat("worker-1", Role.WORKER, ABOUT, ["full"])
        for owner in ("others", "queueing"):
            await asyncio.gather(*(admit(store, f"{owner}-{n}", owner=owner, labels=LABELS) for n in range(WAITING)))
        bearers = {name: {"Authorization": f"Bearer {key}"} for name, (key, _) in made.items()}
        async with running(settings, tmp_path, headers=bearers["free"]) as cluster:
            for _ in range(LIMIT):
                continues = bearers["limited"] | {"X-On-Disconnect": "continue"}
                url = cluster.frontends[0].url + "/v1/chat/completions"
                async with cluster.http.stream("POST", url, json=chat("x", "full"), headers=continues) as answer:
                    assert answer.status_code == 200
            yield Bench(cluster, server, bearers)


async def test_a_refused_call_costs_redis_no_more_than_an_ordinary_request(bench: Bench) -> None:
    ordinary = await bench.commands(CALLS, 200, chat("one two three", stream=False), {})
    costs = {
        name: await bench.commands(CALLS, status, body, headers) for name, (headers, body, status) in REFUSALS.items()
    }
    assert {name: cost for name, cost in costs.items() if cost > ordinary} == {}

"""An inflight limit while the processes that hold it are killed: its shares come back, and never too many."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2

from tests.cluster import Cluster, Process, running
from tests.conformance.calls import endless
from tests.conftest import MakeSettings
from tests.keys import LIMIT, Keys
from tests.waiting import wait_until


async def admitted(cluster: Cluster, keys: Keys, frontend: Process, calls: int) -> int:
    """Return how many of `calls` simultaneous calls are admitted; they continue without their clients."""

    async def call() -> int:
        headers = keys.bearer("acme") | {"X-On-Disconnect": "continue"}
        url = frontend.url + "/v1/chat/completions"
        async with cluster.http.stream("POST", url, json=endless(), headers=headers) as answer:
            assert answer.status_code in (200, 429)
            return answer.status_code

    statuses = await asyncio.gather(*(call() for _ in range(calls)), return_exceptions=True)
    assert all(isinstance(status, int | httpx2.TransportError) for status in statuses)
    return statuses.count(200)


async def cancel_all(cluster: Cluster, frontend: Process) -> None:
    listed = await cluster.get("/v1/requests?status=inflight&limit=1000", frontend)
    for record in listed["data"]:
        answer = await cluster.http.post(f"{frontend.url}/v1/requests/{record['id']}/cancel?wait_ms=10000")
        assert answer.status_code == 200


async def test_a_killed_frontend_gives_back_what_ended_with_it(make_settings: MakeSettings, tmp_path: Path) -> None:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file))
    async with running(settings, tmp_path, frontends=2, headers=keys.bearer("ops")) as cluster:
        a, b = cluster.frontends
        async with cluster.http.stream(
            "POST", a.url + "/v1/chat/completions", json=endless(), headers=keys.bearer("acme")
        ) as ends_with_it:
            assert ends_with_it.status_code == 200
            assert await admitted(cluster, keys, a, 2 * LIMIT) == LIMIT - 1
            await a.kill()

        async def frontend_lost() -> bool:
            return bool((await cluster.get("/v1/requests?status=failed", b))["data"])

        await wait_until(frontend_lost)
        assert await admitted(cluster, keys, b, 2 * LIMIT) == 1, "the others went on under a new owner"
        await cancel_all(cluster, b)
        assert await admitted(cluster, keys, b, 2 * LIMIT) == LIMIT
        await cancel_all(cluster, b)


async def test_a_killed_worker_gives_back_what_it_ran(make_settings: MakeSettings, tmp_path: Path) -> None:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file))
    async with running(settings, tmp_path, headers=keys.bearer("ops")) as cluster:
        frontend, worker = cluster.frontends[0], cluster.workers[0]
        assert await admitted(cluster, keys, frontend, 2 * LIMIT) == LIMIT

        async def all_have_tokens() -> bool:
            listed = await cluster.get("/v1/requests?status=running")
            return bool(sum(record["output_tokens"] > 0 for record in listed["data"]) == LIMIT)

        await wait_until(all_have_tokens)
        await worker.kill()
        await cluster.worker()

        async def none_is_left() -> bool:
            return await cluster.inflight() == 0

        await wait_until(none_is_left)
        assert await admitted(cluster, keys, frontend, 2 * LIMIT) == LIMIT
        await cancel_all(cluster, frontend)


async def test_a_frontend_killed_amid_admissions_leaves_nothing_taken(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file))
    async with running(settings, tmp_path, frontends=2, headers=keys.bearer("ops")) as cluster:
        a, b = cluster.frontends
        flood = asyncio.create_task(admitted(cluster, keys, a, 60))

        async def taken() -> bool:
            return await cluster.inflight(b) > 0

        await wait_until(taken)
        await a.kill()
        await flood
        assert await cluster.inflight(b) <= LIMIT

        async def settled() -> bool:
            """Whatever went on has a new owner."""
            frontends = {replica["id"] for replica in (await cluster.get("/v1/replicas", b))["data"]}
            listed = (await cluster.get("/v1/requests?status=inflight&limit=1000", b))["data"]
            return len(frontends) == 2 and all(record["frontend"] in frontends for record in listed)

        await wait_until(settled)
        await cancel_all(cluster, b)

        async def all_are_free() -> bool:
            """A lease at most after the kill, in which an admission might still have come."""
            let_in = await admitted(cluster, keys, b, 2 * LIMIT)
            await cancel_all(cluster, b)
            assert let_in <= LIMIT
            return let_in == LIMIT

        await wait_until(all_are_free)

"""Replicas are drained, paused and resumed by the clients and the command line, and so is an application's tracker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import lifecycle
from lifecycle.settings import Settings
from tests.cluster import running
from tests.integration.test_replica_instructions import listed, state
from tests.library import Source, given
from tests.programs import Operator
from tests.waiting import wait_until

KINDS = ("redis", "http")


@pytest.mark.parametrize("kind", KINDS)
async def test_clients_drain_pause_and_resume(settings: Settings, tmp_path: Path, kind: str) -> None:
    async with running(settings, tmp_path) as cluster:
        [worker], [frontend] = cluster.workers, cluster.frontends
        arguments: dict[str, Any] = {"url": frontend.url} if kind == "http" else given(settings)
        id = (await listed(cluster, worker))["id"]
        async with lifecycle.AsyncClient(**arguments) as client:
            replica = await client.pause(id)
            assert (replica.id, replica.role) == (id, "worker")
            await state(cluster, worker, "paused")
            await client.resume(id)
            await state(cluster, worker, "ready")
            with pytest.raises(lifecycle.NotFound):
                await client.drain("worker-0")
            with pytest.raises(lifecycle.NotFound):
                await client.drain("../requests")
            with pytest.raises(lifecycle.InvalidValue, match="only a worker can pause"):
                await client.pause((await listed(cluster, frontend))["id"])
            with pytest.raises(lifecycle.InvalidValue, match="malformed"):
                await client.pause("")

        def as_a_script() -> None:
            with lifecycle.Client(**arguments) as plain:
                assert plain.drain(id).id == id
                with pytest.raises((lifecycle.Conflict, lifecycle.NotFound)):
                    plain.resume(id)

        await asyncio.to_thread(as_a_script)
        async with asyncio.timeout(15):
            assert await worker.process.wait() == 0
        cluster.workers.remove(worker)


async def test_the_command_line_waits_until_it_is_done(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_cluster = Operator(capsys, "--redis-url", settings.redis_url, "--namespace", settings.namespace)
    async with running(settings, tmp_path) as cluster:
        [worker], [frontend] = cluster.workers, cluster.frontends
        id, other = (await listed(cluster, worker))["id"], (await listed(cluster, frontend))["id"]
        code, printed, _ = await on_cluster("replicas", "pause", id, "--wait")
        assert (code, printed) == (0, f"{id}: paused, inflight 0\n")
        assert (await on_cluster.json("replicas", "resume", id, "--wait"))["state"] == "ready"
        code, _, said = await on_cluster("replicas", "pause", other)
        assert (code, said.count("\n"), "only a worker can pause" in said) == (1, 1, True)
        code, _, said = await on_cluster("replicas", "drain", "worker-0")
        assert (code, said.count("\n"), "worker-0 is unknown" in said) == (1, 1, True)
        assert (await on_cluster("replicas", "drain"))[0] == 2
        code, printed, _ = await on_cluster("replicas", "drain", id, "--wait")
        assert (code, printed) == (0, f"{id}: has left\n")
        async with asyncio.timeout(15):
            assert await worker.process.wait() == 0
        cluster.workers.remove(worker)
        assert "is told to drain by operator:cli" in worker.log.read_text()


async def test_an_application_that_tracks_is_drained_and_ends_itself(settings: Settings) -> None:
    async with (
        lifecycle.Tracker.connect(**given(settings)) as tracker,
        lifecycle.AsyncClient(**given(settings)) as client,
    ):
        await client.drain(tracker.id)
        await wait_until(lambda: tracker.draining)
        with pytest.raises(lifecycle.Unavailable, match="drains"):
            await tracker.track(Source().events(), model="m")

        async def is_shown() -> bool:
            return [replica.state for replica in await client.replicas()] == ["draining"]

        await wait_until(is_shown)

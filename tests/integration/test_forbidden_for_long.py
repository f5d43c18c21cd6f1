"""The access rules of Redis forbid one command for longer than two leases, and allow it again.

Whatever the command is, clients have an end as in an outage of Redis, everybody is told, and nothing stays inflight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from lifecycle.cli.doctor.command import examine
from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.store.connect import open_store
from lifecycle.store.permissions import needed_commands, operators_commands
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.edge import EdgeServer, edge_server
from tests.known_faults.core.replicas import MODEL, quick_settings, served, worker
from tests.servers import ask
from tests.sse import chat, error_of, post
from tests.waiting import wait_until

LEASE_SECS = 1.0
_LATE_SECS = 2.0  # a heartbeat until it is noticed, one until it has been two leases, and a busy machine
_BACK_SECS = 10.0  # generous
_COMMANDS = ("XADD", "HSET", "EVALSHA", "ZADD", "PUBLISH", "HINCRBY", "ZPOPMIN", "SSUBSCRIBE")
_ENDLESS = "endless"


async def paced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield "0 "
    while request["messages"][0]["content"] == _ENDLESS:
        await asyncio.sleep(0.02)
        yield "1 "


def forbid(server: EmbeddedRedis, command: str) -> None:
    ask(server, "ACL", "SETUSER", "default", "-" + command.lower())


def allow(server: EmbeddedRedis, command: str) -> None:
    ask(server, "ACL", "SETUSER", "default", "+" + command.lower())


async def is_told(edge: EdgeServer, command: str) -> bool:
    """Return whether the frontend says that it is not ready because of this command."""
    ready, health = await edge.http.get("/ready"), await edge.http.get("/health")
    told = f"+{command.lower()}"
    return all(answer.status_code == 503 and told in answer.json()["reason"].split() for answer in (ready, health))


async def is_refused(edge: EdgeServer) -> bool:
    answer = await edge.http.post("/v1/chat/completions", json=chat("once", MODEL, stream=False))
    assert answer.status_code in (200, 503), answer.text
    assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    return answer.status_code == 503


async def is_ready(edge: EdgeServer) -> bool:
    return (await edge.http.get("/ready")).status_code == 200 and not await is_refused(edge)


async def has_cluster_series(edge: EdgeServer) -> bool:
    """Return whether the frontend exports the cluster's series, without which an alert fires."""
    return "lifecycle_cluster_snapshot_age_seconds" in (await edge.http.get("/metrics")).text


async def examined(store: Store) -> str:
    """Return what doctor says about permissions."""
    found = [finding for finding in await examine(store) if finding.check == "permissions"]
    return " ".join(f"{finding.level} {finding.message} {finding.advice}" for finding in found)


@pytest.mark.parametrize("command", _COMMANDS)
async def test_every_client_has_an_end(command: str) -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=LEASE_SECS, concurrency=1, headers_after_secs=0.0)
        async with edge_server(settings) as edge, worker(settings, paced), open_store(settings) as store:
            await served(edge.tracker)
            url = str(edge.http.base_url).rstrip("/")
            async with (
                post(edge.http, url, chat(_ENDLESS, MODEL), X_Request_Id="running") as running,
                post(edge.http, url, chat("once", MODEL), X_Request_Id="queued") as queued,
            ):
                await running.read_tokens(5)
                forbid(server, command)
                forbidden_at = time.monotonic()
                reading = asyncio.gather(running.read(), queued.read())
                await wait_until(lambda: is_told(edge, command), LEASE_SECS, "a frontend that is not ready")
                await wait_until(lambda: is_refused(edge), LEASE_SECS, "a call that is refused")
                ends = [error_of(events) for events in await reading]
                took_secs = time.monotonic() - forbidden_at
            assert LEASE_SECS < took_secs < 2 * LEASE_SECS + _LATE_SECS
            errors = {end["error_type"] if end else "" for end in ends}
            assert errors <= {"unavailable", "worker_lost", "frontend_lost"}
            assert await is_told(edge, command), "still"
            assert not await has_cluster_series(edge)
            said = await examined(store)
            assert command in said.upper(), said
            await asyncio.sleep(LEASE_SECS)  # it lasts
            allow(server, command)
            await wait_until(lambda: is_ready(edge), _BACK_SECS, "a frontend that is ready")

            async def is_quiet() -> bool:
                return not (await cluster.inflight(store)).groups and not len(edge.tracker.owned)

            await wait_until(is_quiet, _BACK_SECS, "nothing inflight")
            statuses = Counter[str]()
            for rid in ("running", "queued"):
                record = await store.read(rid)
                assert record is not None
                statuses[record.status] += 1
            assert "completed" not in statuses, "nobody waited for it"
            totals = (await cluster.snapshot(store)).totals
            assert sum(number for (*_, status, _), number in totals.items() if status == "error") == statuses.total()
            assert "ok" in await examined(store)


async def test_every_needed_command_is_told_and_refused() -> None:
    """Expect that a call whose answer could not be written is not admitted, whichever command it is."""
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=LEASE_SECS * 10)
        async with edge_server(settings) as edge, worker(settings, paced), open_store(settings) as store:
            await served(edge.tracker)
            for command in needed_commands(Role.FRONTEND):
                forbid(server, command)
                await wait_until(partial(is_told, edge, command), what=f"{command} in /ready")
                await wait_until(lambda: is_refused(edge), what=f"a refused call without {command}")
                if command in operators_commands():
                    assert command in (await examined(store)).upper()
                allow(server, command)
                await wait_until(lambda: is_ready(edge), what=f"a frontend that is ready with {command}")


async def test_memory_that_is_full_is_told() -> None:
    """Expect 503 where Redis itself refuses new data, and a stream that goes on."""
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, headers_after_secs=0.0)
        async with edge_server(settings) as edge, worker(settings, paced), open_store(settings) as store:
            await served(edge.tracker)
            url = str(edge.http.base_url).rstrip("/")
            async with post(edge.http, url, chat(_ENDLESS, MODEL)) as stream:
                await stream.read_tokens(5)
                ask(server, "CONFIG", "SET", "maxmemory", "1")
                ready = await edge.http.get("/ready")
                assert (ready.status_code, "memory" in ready.json()["reason"]) == (503, True)
                assert await has_cluster_series(edge), "what runs goes on"
                await wait_until(lambda: is_refused(edge), what="a call that is refused")
                assert [found.level for found in await examine(store) if found.check == "memory"] == ["fail"]
                await stream.read_tokens(5)
                ask(server, "CONFIG", "SET", "maxmemory", "0")
                await wait_until(lambda: is_ready(edge), what="a frontend that is ready")
                await stream.read_tokens(5)

"""A client that vanishes without a word (a sleeping laptop, a lost network) sends neither FIN nor RST.

TCP alone gives up after 15 minutes, or never where nothing is written. The request ends within a bound near
LIFECYCLE_SLOW_CONSUMER_SECS.
The test runs a frontend and its clients in network namespaces of their own, which needs root, and cuts the cable.
Source: TigerVNC/tigervnc#586, nicolasff/webdis#54, xapi-project/xen-api-libs#155, oven-sh/bun#30627.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings, as_environment
from tests.cluster import START_SECS, Cluster, running
from tests.known_faults.reports.kit import MODULE_COMMAND, chat, clean_environment, spawn
from tests.network_namespaces import SERVER_ADDRESS as ADDRESS
from tests.network_namespaces import cable, inside, needs_namespaces, unplug
from tests.waiting import wait_until

BOUND_SECS = 5.0
PORT = 8000  # of an address that nobody else has


pytestmark = [pytest.mark.slow, needs_namespaces]


@asynccontextmanager
async def calling(holder: int, rid: str, stream: bool) -> AsyncIterator[None]:
    """Run a client inside the namespace that asks for a long answer."""
    body = json.dumps(chat("echo", "word " * 2000, stream=stream))
    url = f"http://{ADDRESS}:{PORT}/v1/chat/completions"
    argv = inside(holder, "curl", "-sN", "-o", os.devnull, "-H", f"X-Request-Id: {rid}", "-d", body, url)
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def frontend_inside(cluster: Cluster, holder: int) -> AsyncIterator[None]:
    """Run a frontend of the cluster inside the namespace."""
    settings = {"LIFECYCLE_ALLOW_ANONYMOUS": "true", "LIFECYCLE_SLOW_CONSUMER_SECS": "1"}
    env = clean_environment(as_environment(cluster.settings) | settings)
    argv = ("frontend", "--host", ADDRESS, "--port", str(PORT))
    log, command = cluster.directory / "inside.log", inside(holder, *MODULE_COMMAND)
    process = await spawn(*argv, log=log, env=env, cwd=cluster.directory, command=command)
    try:

        async def joined() -> bool:
            assert process.process.returncode is None, process.log.read_text()
            return any(replica["pid"] == process.pid for replica in (await cluster.get("/v1/replicas"))["data"])

        await wait_until(joined, timeout=START_SECS, what="a frontend inside the namespace")
        yield
    finally:
        await process.terminate()


async def test_the_requests_of_a_vanished_client_end(tmp_path: Path) -> None:
    stream, unary = f"stream-{secrets.token_hex(4)}", f"unary-{secrets.token_hex(4)}"
    with EmbeddedRedis() as redis, cable() as (server, client):
        values: dict[str, Any] = {
            "redis_url": redis.url,
            "heartbeat_secs": 0.25,
            "lease_secs": 2.0,
            "sweep_secs": 0.25,
            "drain_timeout_secs": 0.5,
            "echo_tokens_per_sec": 5.0,
            "sse_keepalive_secs": 1.0,
        }
        async with running(Settings(**values), tmp_path) as cluster, frontend_inside(cluster, server):

            async def have(*statuses: str) -> bool:
                url = cluster.frontends[0].url + "/v1/requests/"
                found = [(await cluster.http.get(url + rid)).json().get("status") for rid in (stream, unary)]
                return all(status in statuses for status in found)

            async with calling(client, stream, True), calling(client, unary, False):
                await wait_until(lambda: have("running"), what="two running requests")
                unplug(client)
                await wait_until(lambda: have("cancelled", "failed"), BOUND_SECS, "the end of both requests")

"""Idle connections up to the limit of descriptors must not shut new clients out, and the log must tell of the limit.

Today new clients are reset as long as the idle ones stay, which is for ever, and nothing is logged. Expected: a line
in the log, and room for new clients once the time for a head is over (LIFECYCLE_HEAD_TIMEOUT_SECS, as in the report
08), or once the idle ones have left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import as_environment
from tests.cluster import START_SECS, Process
from tests.connection import connected
from tests.known_faults.reports.kit import MODULE_COMMAND, Site, clean_environment, port_of, spawn
from tests.waiting import wait_until

LIMIT = 64
LIMITED = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *MODULE_COMMAND)


async def limited_frontend(site: Site, **env: str) -> Process:
    """Start a frontend that may have so many descriptors, and wait until it is ready."""
    port = free_port()
    environment = clean_environment(as_environment(site.settings) | env)
    log = site.directory / "limited.log"
    argv = ("frontend", "--port", str(port))
    process = await spawn(*argv, log=log, env=environment, cwd=site.directory, command=LIMITED)
    site.workers.append(process)
    process.url = f"http://127.0.0.1:{port}"
    await wait_until(lambda: serves(process), timeout=START_SECS, what="a frontend that is ready")
    return process


async def serves(process: Process) -> bool:
    """Return whether the frontend answers a client with a connection of its own."""
    assert process.process.returncode is None, process.log.read_text()
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=1.0) as http:
            return (await http.get(process.url + "/ready")).status_code == 200
    except httpx2.TransportError:
        return False


@asynccontextmanager
async def idle_connections(process: Process) -> AsyncIterator[None]:
    """Have more connections than the frontend has descriptors, and a frontend that has taken what it can."""
    async with AsyncExitStack() as stack:
        for _ in range(LIMIT + 8):
            try:
                await stack.enter_async_context(connected(port_of(process)))
            except OSError:
                break  # refused
        yield


async def refuses(process: Process) -> bool:
    return not await serves(process)


async def test_a_frontend_recovers_when_the_idle_connections_leave(site: Site) -> None:
    process = await limited_frontend(site)
    async with idle_connections(process):
        await wait_until(lambda: refuses(process), what="a frontend without descriptors")
    await wait_until(lambda: serves(process), what="a frontend that serves again")


@pytest.mark.xfail(strict=True, reason="c_fd: a frontend without descriptors does not say so in its log")
async def test_the_log_tells_of_the_limit(site: Site) -> None:
    process = await limited_frontend(site)

    def told() -> bool:
        log = process.log.read_text().lower()
        return "descriptors" in log or "open files" in log

    async with idle_connections(process):
        await wait_until(told, timeout=2.0, what="a line about the limit of descriptors")


@pytest.mark.xfail(strict=True, reason="c_fd: idle connections shut new clients out for ever")
async def test_idle_connections_make_room_for_new_clients(site: Site) -> None:
    process = await limited_frontend(site, LIFECYCLE_HEAD_TIMEOUT_SECS="0.3")
    async with idle_connections(process):
        await wait_until(lambda: serves(process), timeout=2.0, what="a served client")

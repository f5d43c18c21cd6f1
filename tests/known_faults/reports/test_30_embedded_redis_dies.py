"""When the Redis that `lifecycle up` brought dies (a machine without memory), `up` must say so.

Today it runs on for ever beside a dead server. Expected: a line that says that its Redis has died, and then either an
exit with 1 or another server.
Source: no single report.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from tests.cluster import START_SECS, Process
from tests.known_faults.reports.kit import clean_environment, spawn
from tests.waiting import wait_until

QUICK = {
    "LIFECYCLE_LEASE_SECS": "1",
    "LIFECYCLE_HEARTBEAT_SECS": "0.25",
    "LIFECYCLE_SWEEP_SECS": "0.25",
    "LIFECYCLE_DRAIN_TIMEOUT_SECS": "5",
}
NOTICED_SECS = 3.0


def server_of(pid: int) -> int:
    """Return the process id of the Redis or Valkey among the children of a process."""
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listing.read_text().split():
            if any(name in Path(f"/proc/{child}/comm").read_text() for name in ("redis", "valkey")):
                return int(child)
    raise AssertionError("there is no Redis among the children")


@pytest.mark.slow
async def test_up_says_that_its_redis_has_died(tmp_path: Path) -> None:
    port = free_port()
    argv = ("up", "--port", str(port), "--frontends", "1", "--workers", "1")
    up = await spawn(*argv, log=tmp_path / "up.log", env=clean_environment(QUICK), cwd=tmp_path)
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:
            await wait_until(lambda: _ready(http, port), timeout=START_SECS, what="a frontend that is ready")
            os.kill(server_of(up.pid), signal.SIGKILL)

            async def well_or_ended() -> bool:
                return up.process.returncode is not None or (_says_so(up) and await _ready(http, port))

            await wait_until(well_or_ended, timeout=NOTICED_SECS, what="`up` that is well again or ends")
        assert _says_so(up), up.log.read_text()
        assert up.process.returncode in (None, 1)
    finally:
        await _end(up)


async def _ready(http: httpx2.AsyncClient, port: int) -> bool:
    try:
        return (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
    except httpx2.TransportError:
        return False


def _says_so(up: Process) -> bool:
    """Return whether a line of `up` itself (its children's have a bar) tells the end of its Redis."""
    lines = [line.lower() for line in up.log.read_text().splitlines() if "|" not in line and "redis" in line.lower()]
    return any(word in line for line in lines for word in ("died", "ended", "killed"))


async def _end(up: Process) -> None:
    if up.process.returncode is None:
        up.signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await up.process.wait()

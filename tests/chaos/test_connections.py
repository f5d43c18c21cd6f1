"""Clients that hold connections: with calls that never arrive, with no call at all, or with streams."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import as_environment
from tests.chaos.faults import Healing
from tests.cluster import ROOT, START_SECS, Process
from tests.conftest import MakeSettings
from tests.connection import connected
from tests.waiting import wait_until

LIMIT = 64
CLIENTS = LIMIT + 8
HEAD_SECS = 3.0
LIMITED = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", sys.executable, "-m", "lifecycle.cli.main")
STREAM = b"GET /v1/overview HTTP/1.1\r\nHost: localhost\r\n\r\n"
IDLE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def limited(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Process]:
    """A frontend that may have so many descriptors, and is ready."""
    port, log = free_port(), tmp_path / "frontend.log"
    environment = as_environment(make_settings(lease_secs=4.0, head_timeout_secs=HEAD_SECS)) | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            *LIMITED, "frontend", "--port", str(port), env=environment, cwd=tmp_path, stdout=output, stderr=output
        )
    process = Process(started, log, f"http://127.0.0.1:{port}")
    try:
        await wait_until(lambda: serves(process), timeout=START_SECS, what="a frontend that is ready")
        yield process
    finally:
        await process.terminate()


async def serves(process: Process) -> bool:
    """Return whether the frontend answers a client with a connection of its own."""
    assert process.process.returncode is None, process.log.read_text()
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=1.0) as http:
            return (await http.get(process.url + "/ready")).status_code == 200
    except httpx2.TransportError:
        return False


@asynccontextmanager
async def clients(process: Process, sent: bytes, answer: bytes) -> AsyncIterator[None]:
    """Have more connections than the frontend has descriptors, each of which has been answered if it could be."""
    port = int(process.url.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        for _ in range(CLIENTS):
            connection = await stack.enter_async_context(connected(port))
            if not answer:
                continue
            try:
                await connection.send(sent)
                await connection.read_until(answer)
            except (OSError, AssertionError):
                assert connection.closed or process.process.returncode is None
        yield


def logged(process: Process, text: str) -> bool:
    return text in process.log.read_text()


@pytest.mark.fault(
    "Clients open more connections than a frontend has descriptors, and make no calls.",
    "New clients are served, because unused connections are closed, and the log says so.",
)
@pytest.mark.parametrize(
    ("sent", "answer"), [pytest.param(b"", b"", id="silent"), pytest.param(IDLE, b"200 OK", id="idle")]
)
async def test_connections_without_calls(limited: Process, healing: Healing, sent: bytes, answer: bytes) -> None:
    async with clients(limited, sent, answer):
        healing.begins()
        await wait_until(lambda: serves(limited), what="a served client")
        healing.is_over()
        assert logged(limited, "closed an unused connection because descriptors run out")
        for _ in range(10):
            assert await serves(limited)


@pytest.mark.fault(
    "Streams need all descriptors of a frontend.",
    "A new client is refused and the log says so; when a stream has ended, clients are served again.",
)
async def test_streams_need_all_descriptors(limited: Process, healing: Healing) -> None:
    async with clients(limited, STREAM, b"data: "):

        async def refused() -> bool:
            return not await serves(limited)

        await wait_until(refused, what="a frontend whose descriptors are needed")
        await wait_until(lambda: logged(limited, "no_descriptors"), what="a line in the log")
        healing.begins()
    await wait_until(lambda: serves(limited), what="a frontend that serves again")
    healing.is_over()


@pytest.mark.fault(
    "Clients send half a call and nothing more.",
    "Each is answered 408 and disconnected at the limit of time for a head.",
)
async def test_calls_that_never_arrive(limited: Process, healing: Healing) -> None:
    port = int(limited.url.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(port)) for _ in range(10)]
        healing.begins()
        await asyncio.gather(*(connection.send(IDLE[:-2]) for connection in opened))
        answers = await asyncio.gather(*(connection.read_to_end(2 * HEAD_SECS) for connection in opened))
        healing.is_over()
    assert [answer.split()[1] for answer in answers] == [b"408"] * len(opened)


async def test_too_low_a_limit_is_told_at_the_start(limited: Process) -> None:
    assert logged(limited, f"the limit of open files (descriptors) is {LIMIT}, which leaves")


async def test_the_soft_limit_is_raised() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command = (
        "import resource; from frontend.edge.descriptors import raise_limit; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096)); "
        "assert raise_limit() == 4096; assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 4096"
    )
    if 0 <= hard < 4096:
        pytest.skip("the hard limit is too low")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", command, cwd=ROOT)
    assert await process.wait() == 0

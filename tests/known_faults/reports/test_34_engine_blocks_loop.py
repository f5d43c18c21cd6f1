"""The usual first engine is synchronous model code in an `async def`, which blocks the event loop longer than a lease.

Today the worker's lease expires: the attempt is thrown away, and so are all requests beside it. Expected: heartbeats
go on, the answer comes from the first attempt, nobody else is hurt, and the log names what blocks.
The same as edge/d_blocking.
Source: OptimalBits/bull#412, #1822 and #2188, taskforcesh/bullmq#3056 and #3183 ("job stalled more than allowable
limit").
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.known_faults.reports.kit import chat
from tests.sse import error_of, post
from tests.waiting import wait_until

LEASE_SECS = 1.0
ENGINE = f"""
import asyncio, time

async def generate(request, context):
    if request["messages"][-1]["content"] == "block":
        time.sleep({2 * LEASE_SECS + 0.5})
        yield "done"
        return
    for number in range(20):
        yield f"{{number}} "
        await asyncio.sleep(0.05)
"""


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A frontend, and a worker with the engine above."""
    settings = make_settings(lease_secs=LEASE_SECS, max_attempts=1, drain_timeout_secs=1.0)
    async with running(settings, tmp_path, workers=0) as cluster:
        (tmp_path / "sync_model.py").write_text(ENGINE)
        await cluster.worker("sync", "sync_model:generate")
        yield cluster


@pytest.mark.xfail(
    strict=True, reason="34: a worker whose engine blocks the event loop loses its lease and its requests"
)
async def test_an_engine_that_blocks_the_loop_costs_no_request(cluster: Cluster) -> None:
    url = cluster.frontends[0].url
    async with post(cluster.http, url, chat("sync", "normal", stream=True)) as neighbour:
        await neighbour.read_tokens(2)
        answer = await cluster.http.post(url + "/v1/chat/completions", json=chat("sync", "block"))
        events = await neighbour.read()
    assert (answer.status_code, error_of(events)) == (200, None), answer.text
    assert (await cluster.record(answer.headers["x-request-id"]))["attempt"] == 1


@pytest.mark.xfail(strict=True, reason="34: the log does not say that an engine blocks the event loop")
async def test_the_log_names_what_blocks(cluster: Cluster) -> None:
    url = cluster.frontends[0].url + "/v1/chat/completions"
    await cluster.http.post(url, json=chat("sync", "block"))
    log = cluster.workers[0].log

    def named() -> bool:
        return "block" in log.read_text().lower() and "sync_model.py" in log.read_text()  # a line of its stack

    await wait_until(named, timeout=3 * LEASE_SECS, what="a log that names what blocks")

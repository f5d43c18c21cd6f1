"""Preemption before an engine that can resume: the better request gets the slot, and the other one's text is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.sse import Stream, chat, error_of, post, text_of

ENGINE, PLAIN = "tests.engines:resumed", "tests.engines:paced"
COUNT = 60


def whole(count: int = COUNT) -> str:
    return "".join(f"{number} " for number in range(count))


@pytest.fixture
def cluster_of(make_settings: MakeSettings, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def cluster(engine: str = ENGINE, **settings: Any) -> AsyncIterator[Cluster]:
        """Two frontends, and one worker with one slot."""
        made = make_settings(**{"concurrency": 1, "preempt": True, "heartbeat_secs": 1.0, "lease_secs": 8.0} | settings)
        async with running(made, tmp_path, frontends=2, workers=0) as cluster:
            await cluster.worker("m", engine)
            yield cluster

    return cluster


@asynccontextmanager
async def long(cluster: Cluster, rid: str = "long", **fields: Any) -> AsyncIterator[Stream]:
    """A request of priority 5 that runs, and has some of its text."""
    body = chat(f"{COUNT} 0.03", "m", **{"priority": 5} | fields)
    async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id=rid) as stream:
        await stream.read_tokens(5)
        yield stream


async def ask(cluster: Cluster, rid: str, priority: int, count: int = 3, pause: float = 0.01) -> dict[str, Any]:
    """Ask through the second frontend for a short answer, and return its record."""
    body = chat(f"{count} {pause}", "m", stream=False, priority=priority)
    url = cluster.frontends[1].url
    answer = await cluster.http.post(url + "/v1/chat/completions", json=body, headers={"X-Request-Id": rid})
    assert answer.json()["choices"][0]["message"]["content"] == whole(count)
    return await cluster.record(rid)


async def rest(stream: Stream) -> str:
    async with asyncio.timeout(30):
        events = await stream.read()
    assert error_of(events) is None
    return text_of(events)


async def test_a_better_request_gets_the_slot_and_the_other_text_is_whole(cluster_of: Any) -> None:
    async with cluster_of() as cluster:
        async with long(cluster) as stream:
            better = await ask(cluster, "better", -1)
            assert (await cluster.record("long"))["status"] != "completed"
            text = await rest(stream)
        assert text == whole()
        record = await cluster.record("long")
        assert better["started_at"] - better["created_at"] < 1
        assert (better["attempt"], better["preemptions"]) == (1, 0)
        assert (record["status"], record["preemptions"], record["output_tokens"]) == ("completed", 1, COUNT)
        entries = (await cluster.get("/v1/requests/long/timeline"))["data"]
        moved = next(entry for entry in entries if entry.get("outcome") == "preempted")
        assert (moved["preempted_by"], moved["error_type"]) == (-1, "")
        assert await cluster.inflight() == 0
        for name, value in (("preemptions", 1), ("requests", 1), ("output_tokens", COUNT)):
            assert await cluster.metric(f"lifecycle_{name}_total", model="m") == value
        for name in ("inflight", "queued"):
            assert await cluster.metric(f"lifecycle_{name}_requests", model="m") == 0

"""The memory of Redis is full of bodies that wait, beside requests that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.server_info import parse_info
from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import paced, straight_bench
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.servers import ask
from tests.sse import chat, error_of
from tests.waiting import wait_until

_MEMORY = "24mb"
_BODY_BYTES = 1_000_000
_MOST_BODIES = 40
_NUMBERS = 4000  # more than a worker holds while Redis takes none


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0, config={"maxmemory": _MEMORY}) as server:
        yield server


@pytest.fixture
def redis_url(server: EmbeddedRedis) -> str:
    return server.url


def _large() -> dict[str, Any]:
    """A request for one number, with a body that takes a part of the memory."""
    body = chat("1 0", "paced")
    return {**body, "messages": [{"role": "system", "content": "x" * _BODY_BYTES}, *body["messages"]]}


async def _call(bench: Bench, frontend: Process, rid: str, body: dict[str, Any]) -> str:
    """Send a call whose client leaves at once. Return the code of its refusal, '' when it was admitted."""
    headers = {"X-Request-Id": rid, "X-On-Disconnect": "continue"}
    async with bench.http.stream("POST", frontend.url + "/v1/chat/completions", json=body, headers=headers) as answer:
        if answer.status_code == 200:
            return ""
        assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
        await answer.aread()
        return str(answer.json()["error"]["code"])


def _exceed_memory(server: EmbeddedRedis) -> None:
    """Let the data that is there be more than `maxmemory`."""
    used = int(parse_info(str(ask(server, "INFO", "memory")))["used_memory"])
    ask(server, "CONFIG", "SET", "maxmemory", used * 3 // 4)


@pytest.mark.fault(
    "The bodies of queued requests fill the memory of Redis, beside streams that run.",
    "Calls get 503; the streams end whole, what waits is started then, and calls are admitted again.",
)
async def test_bodies_fill_the_memory(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(concurrency=2, headers_after_secs=0.0)
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(_NUMBERS, 0.002), "r1") as first,
        bench.post(bench.frontends[1], paced(_NUMBERS, 0.002), "r2") as second,
    ):
        await first.read_tokens(3)
        await second.read_tokens(3)
        queued: list[str] = []
        while not (refusal := await _call(bench, bench.frontends[0], f"q{len(queued)}", _large())):
            queued.append(f"q{len(queued)}")
            assert len(queued) < _MOST_BODIES
        assert refusal == "memory_full"
        assert len(queued) > 10
        assert await bench.metric("lifecycle_cluster_queued_bytes", model="paced") > len(queued) * _BODY_BYTES
        healing.begins()
        _exceed_memory(server)
        assert await _call(bench, bench.frontends[1], "small", paced(1)) == "memory_full"
        for stream in (first, second):  # which hold the slots of the only worker
            events = await stream.read()
            assert (text_of(events), error_of(events)) == (numbers(_NUMBERS), None)
        records = [await bench.ended(rid) for rid in queued]
        assert {record["status"] for record in records} == {"completed"}

        async def is_admitted() -> bool:
            return not await _call(bench, bench.frontends[1], "late", paced(1))

        await wait_until(is_admitted)
        healing.is_over()
        assert (await bench.ended("late"))["status"] == "completed"
        assert await bench.metric("lifecycle_cluster_queued_bytes", model="paced") == 0
        await bench.quiet()

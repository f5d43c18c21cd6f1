"""The example `examples/agent.py` with two replicas: stream, cancel at the other, reload and resume, kill one."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import orjson

import lifecycle
from lifecycle.settings import Settings
from tests.cluster import ROOT
from tests.integration.test_fastapi_servers import data_of, has_status, serving
from tests.library import given
from tests.waiting import wait_until

EXAMPLE = ROOT / "examples" / "agent.py"
LONG = " ".join(["word"] * 500)


def test_it_is_short() -> None:
    code = EXAMPLE.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


async def test_two_replicas_are_one_application(settings: Settings, tmp_path: Path) -> None:
    async with (
        serving(settings, "uvicorn-httptools", "examples.agent:app", tmp_path, factory=False) as first,
        serving(settings, "uvicorn-h11", "examples.agent:app", tmp_path, factory=False) as second,
        lifecycle.AsyncClient(**given(settings)) as client,
    ):
        answer = await first.post("/agent", params={"question": "one two"})
        assert data_of(answer.text)[:2] == ['{"step":1,"thought":"one"}', '{"step":2,"thought":"two"}']

        async with ask(first, "cancelled") as response:
            lines = response.aiter_lines()
            await anext(lines)
            cancelled = await second.post("/v1/requests/cancelled/cancel", json={"wait_ms": 5000})
            assert cancelled.json()["status"] == "cancelled"
            rest = [line async for line in lines]
            assert orjson.loads(data_of("\n".join(rest))[-2])["error"]["error_type"] == "cancelled"

        async with ask(first, "reloaded") as response:
            lines = response.aiter_lines()
            while await anext(lines) != "id: 1-2":
                pass
            async with second.stream("GET", "/v1/requests/reloaded/stream", headers={"last-event-id": "1-2"}) as again:
                resumed = again.aiter_lines()
                await response.aclose()  # the page has gone, and reads elsewhere by now
                assert [await anext(resumed) for _ in range(2)] == ["id: 1-3", 'data: {"step":3,"thought":"word"}']
                assert (await client.get("reloaded")).status == "running"
        await wait_until(lambda: has_status(client, "reloaded", "cancelled"))

        async with ask(first, "doomed") as response:
            lines = response.aiter_lines()
            await anext(lines)
            record = await client.get("doomed")
            (pid,) = [replica.pid for replica in await client.replicas() if replica.id == record.frontend]
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda: has_status(client, "doomed", "failed"))
        assert (await client.get("doomed")).error_type == "worker_lost"
        assert (await second.get("/v1/inflight")).json()["total"] == 0
        assert (await second.post("/agent", params={"question": "still here"})).status_code == 200


def ask(replica: httpx2.AsyncClient, rid: str) -> AbstractAsyncContextManager[httpx2.Response]:
    return replica.stream("POST", "/agent", params={"question": LONG}, headers={"x-request-id": rid})

"""The example `examples/agent.py` with two replicas: stream, cancel at the other, reload and resume, kill one."""

from __future__ import annotations

import importlib.util
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import orjson
import pytest

import lifecycle
from tests.cluster import ROOT
from tests.conftest import MakeSettings
from tests.integration.test_fastapi_servers import data_of, has_status, serving
from tests.library import given
from tests.waiting import wait_until

EXAMPLE = ROOT / "examples" / "agent.py"
LONG = " ".join(["word"] * 500)


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} are not installed")


def test_it_is_short() -> None:
    code = EXAMPLE.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize(
    "servers",
    [
        ("uvicorn-httptools", "uvicorn-h11"),
        pytest.param(("hypercorn", "granian"), marks=needs("hypercorn", "granian")),
        pytest.param(("granian", "hypercorn"), marks=needs("hypercorn", "granian")),
    ],
    ids=" and ".join,
)
async def test_two_replicas_are_one_application(
    make_settings: MakeSettings, tmp_path: Path, servers: tuple[str, str]
) -> None:
    assert "export LIFECYCLE_DISCONNECT_GRACE_SECS=" in EXAMPLE.read_text()
    settings = make_settings(disconnect_grace_secs=3.0)  # shorter than the example's, since its end is waited for
    async with (
        serving(settings, servers[0], "examples.agent:app", tmp_path, factory=False) as first,
        serving(settings, servers[1], "examples.agent:app", tmp_path, factory=False) as second,
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
        await wait_until(lambda: has_no_client(second, "reloaded"))
        async with second.stream("GET", "/v1/requests/reloaded/stream", headers={"last-event-id": "1-2"}) as again:
            resumed = again.aiter_lines()
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


async def has_no_client(replica: httpx2.AsyncClient, rid: str) -> bool:
    told = (await replica.get(f"/v1/requests/{rid}/timeline")).json()["data"]
    return "client_disconnected" in [entry["what"] for entry in told]


def ask(replica: httpx2.AsyncClient, rid: str) -> AbstractAsyncContextManager[httpx2.Response]:
    return replica.stream("POST", "/agent", params={"question": LONG}, headers={"x-request-id": rid})

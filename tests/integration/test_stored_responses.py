"""A frontend says what became of a response whose content was deleted, or put out by newer content."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conformance.calls import until
from tests.shared_cluster import borrowed, shared_cluster
from tests.waiting import wait_until

MODEL = "native"
STORED_BYTES = 60_000


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"stored-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=5.0,
        sweep_secs=0.25,
        stored_bytes=STORED_BYTES,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("stored"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker(MODEL, "tests.response_engine:generate")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


async def create(cluster: Cluster, frontend: Process, key: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of the answer."""
    headers = {"Idempotency-Key": key} if key else {}
    url = frontend.url + "/v1/responses"
    answer = await cluster.http.post(url, json={"model": MODEL, **body}, headers=headers)
    return answer.status_code, answer.json()


async def created(cluster: Cluster, frontend: Process, key: str = "", **body: Any) -> dict[str, Any]:
    status, answer = await create(cluster, frontend, key, **body)
    assert status == 200, answer
    return answer


async def test_the_oldest_responses_make_room_and_are_unknown_then(cluster: Cluster) -> None:
    here, there = cluster.frontends
    oldest = await created(cluster, here, input="x" * 10_000)
    newest = oldest
    for _ in range(6):
        newest = await created(cluster, there, input="x" * 10_000)
    for frontend in (here, there):
        for path in (oldest["id"], f"{oldest['id']}/input_items"):
            assert (await cluster.http.get(f"{frontend.url}/v1/responses/{path}")).status_code == 404
        assert (await cluster.get(f"/v1/responses/{newest['id']}", frontend))["output"] == newest["output"]
    status, answer = await create(cluster, here, input="more", previous_response_id=oldest["id"])
    assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")
    assert "removed to make room" in answer["error"]["message"]
    assert (await cluster.record(oldest["id"]))["status"] == "completed", "the record stays"
    stream = await cluster.http.get(f"{here.url}/v1/requests/{oldest['id']}/stream")
    assert (stream.status_code, stream.json()["error"]["code"]) == (404, "content_deleted")


async def test_a_running_response_is_not_continued(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = await created(cluster, cluster.frontends[0], input="one two", background=True, metadata={"gate": str(gate)})
    status, answer = await create(cluster, cluster.frontends[1], input="x", previous_response_id=first["id"])
    assert (status, answer["error"]["param"]) == (400, "previous_response_id")
    assert "has not ended" in answer["error"]["message"]
    gate.touch()
    await until(cluster, first["id"], "completed")
    continued = await created(cluster, cluster.frontends[1], input="x", previous_response_id=first["id"])
    assert continued["previous_response_id"] == first["id"]


async def test_a_repeated_call_attaches_although_what_it_continued_is_deleted(cluster: Cluster) -> None:
    here, there = cluster.frontends
    first = await created(cluster, here, input="one")
    key = secrets.token_hex(8)
    call = {"input": "two", "previous_response_id": first["id"]}
    second = await created(cluster, here, key, **call)
    assert (await cluster.http.delete(f"{there.url}/v1/responses/{first['id']}")).status_code == 200
    again = await created(cluster, there, key, **call)
    assert again["id"] == second["id"]
    assert again["output"] == second["output"]
    status, answer = await create(cluster, there, key, input="other", previous_response_id=first["id"])
    assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")


async def test_what_is_not_stored_leaves_no_body(cluster: Cluster) -> None:
    first = await created(cluster, cluster.frontends[0], input="one", store=False)

    async def gone() -> bool:
        answer = await cluster.http.get(f"{cluster.frontends[1].url}/v1/responses/{first['id']}/input_items")
        return answer.status_code == 404

    await wait_until(gone)
    retrieved = await cluster.http.get(f"{cluster.frontends[1].url}/v1/responses/{first['id']}")
    assert (retrieved.status_code, retrieved.json()["error"]["code"]) == (404, "response_not_found")
    status, answer = await create(cluster, cluster.frontends[1], input="more", previous_response_id=first["id"])
    assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")

"""The router of `lifecycle.fastapi`: calls that it refuses, and streams of requests that others have admitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import Request
from starlette.testclient import TestClient

import lifecycle
from lifecycle.aio import tasks
from lifecycle.settings import Settings
from tests.integration.test_fastapi_in_process import application
from tests.integration.test_fastapi_servers import data_of
from tests.library import connect, given
from tests.library_app import add_routes
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"status": "inflight", "dry_run": "true"}, "dry_run"),
        ({"status": "inflight", "dry_run": 1}, "dry_run"),
        ({"status": "bogus"}, "status"),
        ({"status": "completed"}, "status"),
        ({"model": 5}, "model"),
        ({"owner": ["ann"]}, "owner"),
        ({"worker": "w" * 513}, "worker"),
        ({"endpoint": "No!"}, "endpoint"),
        ({"modle": "three"}, "modle"),
        ({"older_than_secs": "60"}, "older_than_secs"),
        ({"older_than_secs": True}, "older_than_secs"),
        ({"older_than_secs": -1}, "older_than_secs"),
        ({"older_than_secs": 1e9}, "older_than_secs"),
        ({"model": "three", "mode": "x"}, "mode"),
        ({"model": "three", "mode": False}, "mode"),
        ({"model": "three", "mode": []}, "mode"),
        ({"model": "three", "reason": 5}, "reason"),
        ({"model": "three", "reason": False}, "reason"),
    ],
)
def test_a_selector_that_is_malformed_is_refused(settings: Settings, fields: dict[str, Any], param: str) -> None:
    with TestClient(add_routes(application(settings))) as client:
        answer = client.post("/v1/requests/cancel", json=fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("limit", ["0", "1001", "1_0", "+1", "\u0663", "9" * 5000])
def test_a_limit_that_is_no_integer_in_its_range_is_refused(settings: Settings, limit: str) -> None:
    with TestClient(add_routes(application(settings))) as client:
        answer = client.get("/v1/requests", params={"limit": limit})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
        assert answer.json()["error"]["message"].endswith(f"not {limit!r:.50}")


def test_a_page_starts_behind_a_request_that_the_caller_may_see(settings: Settings) -> None:
    def owner(request: Request) -> str | None:
        return request.headers.get("x-user")

    app = application(settings, owner=owner)
    app.include_router(lifecycle.fastapi.router(owner))
    with TestClient(add_routes(app), headers={"x-user": "ann"}) as client:
        rid = client.post("/three").headers["x-request-id"]
        assert client.get("/v1/requests", params={"after": rid}).json()["data"] == []
        for user, after in (("ann", "unknown"), ("ann", "not an id"), ("bob", rid)):
            headers = {"x-user": user}
            listed = client.get("/v1/requests", params={"after": after}, headers=headers)
            cancelled = client.post("/v1/requests/cancel", json={"model": "three", "after": after}, headers=headers)
            for answer in (listed, cancelled):
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


@lifecycle.engine(endpoints=("embeddings",))
async def embed(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[Any]:
    yield {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}


async def test_the_answer_of_a_forward_is_an_object(settings: Settings) -> None:
    app = add_routes(application(settings))
    worker = lifecycle.Worker(embed, model="vectors", **given(settings))
    async with (
        AsyncExitStack() as stack,
        app.router.lifespan_context(app),
        connect(settings) as tracker,
    ):
        stack.push_async_callback(tasks.end, (asyncio.create_task(worker.run()),))

        async def is_served() -> bool:
            return any("vectors" in replica.models for replica in await tracker.replicas())

        await wait_until(is_served)
        async with await tracker.submit({"model": "vectors", "input": "a"}, "embeddings") as run:
            (yielded,) = [event async for event in run]
        assert yielded["data"] == [{"index": 0, "embedding": [0.5]}]
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
            path = f"/v1/requests/{run.id}/stream"
            streamed = data_of((await client.get(path)).text)
            assert (orjson.loads(streamed[0]), streamed[1:]) == (yielded, ["[DONE]"])
            lines = (await client.get(path, headers={"accept": "application/x-ndjson"})).text
            assert orjson.loads(lines) == yielded


def test_replicas_are_instructed_by_operators_only(settings: Settings) -> None:
    def owner(request: Request) -> str | None:
        return request.headers.get("x-user")

    app = application(settings, owner=owner)
    app.include_router(lifecycle.fastapi.router(owner))
    with TestClient(app, headers={"x-user": "ann"}) as client:
        for action in ("drain", "pause", "resume"):
            assert client.post(f"/v1/replicas/worker-0/{action}").status_code == 403
    with TestClient(add_routes(application(settings))) as client:
        [replica] = client.get("/v1/replicas").json()["data"]
        path = f"/v1/replicas/{replica['id']}"
        assert client.post("/v1/replicas/worker-0/pause").status_code == 404
        paused = client.post(f"{path}/pause")
        assert (paused.status_code, paused.json()["error"]["code"]) == (400, "not_a_worker")
        drained = client.post(f"{path}/drain")
        assert (drained.status_code, drained.json()["id"]) == (202, replica["id"])

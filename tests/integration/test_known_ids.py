"""An id that is known is told as known, also to a caller that is at a limit: 409, or the answer of the first call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import lifecycle
from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from tests.cluster import Cluster, running
from tests.conformance.calls import cancel, endless, refusal, send, until
from tests.conftest import MakeSettings
from tests.library import connect
from tests.sse import chat, post
from tests.waiting import wait_until

# What refuses a new call of the owner, beside one call that runs and one that waits: settings, status and code.
LIMITS: dict[str, tuple[dict[str, Any], int, str]] = {
    "inflight limit of the key": ({}, 429, "inflight_limit"),
    "queue limit": ({"queue_limit": 1}, 503, "queue_full"),
    "queue limit of all": ({"model_queue_limit": 1}, 503, "queue_full"),
    "queue limit of the owner": ({"owner_queue_bytes": 1}, 429, "queue_limit"),
    "bodies of all queues": ({"queue_bytes": 1024}, 503, "queue_full"),
}


@asynccontextmanager
async def full_cluster(
    make_settings: MakeSettings, directory: Path, **overrides: Any
) -> AsyncIterator[tuple[Cluster, dict[str, Any]]]:
    """Run two frontends and a worker whose one slot is taken. The request `waits` is queued. Yields its body, too."""
    key, kept = new_key("acme", KeyRole.OPERATOR, 0 if overrides.keys() - {"shards"} else 2)
    settings = make_settings(api_keys=kept.line, concurrency=1, **overrides)
    bearer = {"Authorization": f"Bearer {key}"}
    async with running(settings, directory, frontends=2, headers=bearer) as cluster:
        a, body = cluster.frontends[0].url, chat("again " * 200, echo_repeat=1_000_000)
        async with post(cluster.http, a, body, X_Request_Id="runs") as runs:
            await runs.read_tokens(1)
            async with post(cluster.http, a, body, X_Request_Id="waits", Idempotency_Key="the-same"):
                await until(cluster, "waits", "queued")
                try:
                    yield cluster, body
                finally:
                    await cancel(cluster, "waits")


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_known_id_comes_before_every_limit(
    make_settings: MakeSettings, tmp_path: Path, limit: str, shards: int
) -> None:
    settings, status, code = LIMITS[limit]
    async with full_cluster(make_settings, tmp_path, shards=shards, **settings) as (cluster, body):
        for frontend in cluster.frontends:
            assert refusal(await send(cluster, body, frontend, X_Request_Id="new"), status)["code"] == code
            for rid in ("runs", "waits"):
                answer = await send(cluster, body, frontend, X_Request_Id=rid)
                assert refusal(answer, 409)["code"] == "request_id_in_use"
                assert answer.headers["x-should-retry"] == "false"
            async with post(cluster.http, frontend.url, body, Idempotency_Key="the-same") as again:
                assert again.response.status_code == 200
                assert again.response.headers["x-request-id"] == "waits"
                assert again.response.headers["idempotent-replayed"] == "true"


async def test_a_known_id_comes_before_what_the_model_lacks(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The worker has gone: new calls are refused, and the answer of the first one is there."""
    async with running(make_settings(), tmp_path, frontends=2) as cluster:
        body = chat("a b c", stream=False)
        first = await send(cluster, body, X_Request_Id="first", Idempotency_Key="the-same")
        assert first.status_code == 200
        await cluster.workers[0].terminate()

        for frontend in cluster.frontends:

            async def is_refused(frontend: Any = frontend) -> bool:
                answer = await send(cluster, body, frontend)
                return answer.status_code == 503 and answer.json()["error"]["code"] == "no_worker"

            await wait_until(is_refused)
            answer = await send(cluster, body, frontend, X_Request_Id="first")
            assert refusal(answer, 409)["code"] == "request_id_in_use"
            again = await send(cluster, body, frontend, Idempotency_Key="the-same")
            assert (again.status_code, again.json()) == (200, first.json())
            assert again.headers["idempotent-replayed"] == "true"


async def test_a_known_id_comes_before_the_limit_of_readers(make_settings: MakeSettings, tmp_path: Path) -> None:
    """A repeated call with an Idempotency-Key reads, so it needs a place among the readers as every other one."""
    async with running(make_settings(max_readers=1), tmp_path) as cluster:
        body, url = endless(), cluster.frontends[0].url
        async with post(cluster.http, url, body, X_Request_Id="reads", Idempotency_Key="the-same") as reads:
            await reads.read_tokens(1)
            assert refusal(await send(cluster, body, X_Request_Id="new"), 503)["code"] == "overloaded"
            assert refusal(await send(cluster, body, X_Request_Id="reads"), 409)["code"] == "request_id_in_use"
            assert refusal(await send(cluster, body, Idempotency_Key="the-same"), 503)["code"] == "overloaded"
        await cancel(cluster, "reads")


async def test_the_library_says_conflict_before_overloaded(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(queue_limit=1, concurrency=1, shards=4)
    async with running(settings, tmp_path) as cluster, connect(settings) as here, connect(settings) as there:
        body = endless()
        async with await here.submit(body, id="runs"):
            await until(cluster, "runs", "running")
            async with await here.submit(body, id="waits"):
                with pytest.raises(lifecycle.Overloaded):
                    await there.submit(body, id="new")
                for rid in ("runs", "waits"):
                    with pytest.raises(lifecycle.Conflict):
                        await there.submit(body, id=rid)

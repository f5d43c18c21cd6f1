"""LIFECYCLE_QUEUE_BYTES bounds the bodies that wait, over all shards and frontends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import running
from tests.conformance.calls import endless
from tests.conftest import MakeSettings
from tests.sse import chat, post
from tests.waiting import wait_until

BOUND = 20_000


@pytest.mark.parametrize("shards", [1, 4])
async def test_a_body_beyond_the_bound_is_refused(make_settings: MakeSettings, tmp_path: Path, shards: int) -> None:
    settings = make_settings(shards=shards, concurrency=1, queue_bytes=BOUND)
    large = chat("x" * (BOUND * 3 // 4))
    async with running(settings, tmp_path, frontends=2) as cluster:
        a, b = (frontend.url for frontend in cluster.frontends)
        async with post(cluster.http, a, endless()) as runs:
            await runs.read_tokens(1)
            async with post(cluster.http, a, large, Idempotency_Key="the-same") as waits:
                assert waits.response.status_code == 200
                answer = await cluster.http.post(b + "/v1/chat/completions", json=large)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
                assert f"{BOUND:,} bytes" in answer.json()["error"]["message"]
                assert int(answer.headers["retry-after"]) >= 1
                async with post(cluster.http, b, large, Idempotency_Key="the-same") as again:
                    assert again.response.status_code == 200, "it starts nothing"

        async def is_admitted() -> bool:
            answer = await cluster.http.post(b + "/v1/chat/completions", json={**large, "stream": False})
            return answer.status_code == 200

        await wait_until(is_admitted)
        assert await cluster.metric("lifecycle_cluster_queued_bytes", model="echo") == 0

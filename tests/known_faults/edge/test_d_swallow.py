"""An engine that swallows its cancellation must be visible: the cancel is not confirmed, and a metric counts it."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.known_faults.reports.kit import Site, chat
from tests.sse import post
from tests.waiting import wait_until


async def test_an_engine_that_cannot_be_ended_is_counted(site: Site, model: str, tmp_path: Path) -> None:
    rid, release = f"swallow-{secrets.token_hex(4)}", tmp_path / "release"
    await site.worker(model, "tests.engines:stubborn", drain_timeout_secs=2.0)
    async with post(site.http, site.url, chat(model, str(release), stream=True), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        try:
            answer = await site.http.post(f"{site.url}/v1/requests/{rid}/cancel?wait_ms=500")
            assert answer.status_code == 202
            assert answer.json()["status"] == "running"

            async def stuck() -> bool:
                return await site.metric("lifecycle_engines_stuck", model=model) == 1

            await wait_until(stuck, what="a metric that counts the engine")
        finally:
            release.touch()
        await stream.read()

    async def cancelled() -> bool:
        return bool((await site.record(rid))["status"] == "cancelled")

    await wait_until(cancelled, what="a cancel that is confirmed")

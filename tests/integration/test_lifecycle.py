"""The seed's behaviours, seen on the running system: real Redis, real processes, real connections."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.engines import SEND_ERROR, STREAM_ENDED
from tests.sse import chat, error_of, post, resume, text_of
from tests.waiting import wait_until


@pytest.mark.parametrize("message", [STREAM_ENDED, SEND_ERROR])
async def test_an_engine_error_is_one_exact_frame_and_then_done(
    settings: Settings, tmp_path: Path, message: str
) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        frontend = await cluster.frontend() if not cluster.frontends else cluster.frontends[0]
        await cluster.worker("raiser", "tests.engines:three_then_raise")
        async with post(cluster.http, frontend.url, chat(message, "raiser"), X_Request_Id="r1") as stream:
            events = await stream.read()
        assert text_of(events) == "one two three"
        assert [e.id for e in events] == ["1-1", "1-2", "1-3", None, None]
        assert error_of(events) == {
            "message": message,
            "type": "internal_server_error",
            "code": 500,
            "param": None,
            "error_type": "internal",
            "request_id": "r1",
        }
        assert all(e.event is None for e in events)
        assert stream.comments == []
        assert await cluster.inflight() == 0
        assert await cluster.metric("lifecycle_requests_total", model="raiser", error_type="internal") == 1
        assert await cluster.metric("lifecycle_inflight_requests", model="raiser") == 0


async def test_inactivity_releases_the_gauge_and_is_no_cancellation(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with running(make_settings(backend_stream_timeout_secs=1), tmp_path, workers=0) as cluster:
        await cluster.worker("silent", "tests.engines:silent")
        url = cluster.frontends[0].url
        async with post(cluster.http, url, chat("2", "silent"), X_Request_Id="r1") as stream:
            error = error_of(await stream.read())
        assert error is not None
        assert (error["type"], error["code"], error["error_type"]) == ("timeout_error", 504, "response_timeout")
        assert "1 second" in error["message"]
        record = await cluster.record("r1")
        assert (record["status"], record["error_type"], record["output_tokens"]) == ("failed", "response_timeout", 2)
        assert await cluster.inflight() == 0
        assert await cluster.metric("lifecycle_inflight_requests") == 0
        assert await cluster.metric("lifecycle_requests_total", error_type="response_timeout") == 1
        assert await cluster.metric("lifecycle_cancellations_total") == 0


async def test_each_token_resets_the_inactivity_timeout(make_settings: MakeSettings, tmp_path: Path) -> None:
    """It is no deadline: the whole takes longer than the limit, no single wait does."""
    async with running(make_settings(backend_stream_timeout_secs=1), tmp_path, workers=0) as cluster:
        await cluster.worker("paced", "tests.engines:paced")
        async with post(cluster.http, cluster.frontends[0].url, chat("8 0.3", "paced")) as stream:
            events = await stream.read()
        assert text_of(events) == "0 1 2 3 4 5 6 7 "
        assert error_of(events) is None


async def test_a_hung_worker_is_given_up_at_twice_the_limit(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The worker itself cannot tell: the frontend ends the request and releases the gauge."""

    chosen = make_settings(backend_stream_timeout_secs=1, lease_secs=20.0)
    async with running(chosen, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("silent", "tests.engines:silent")
        async with post(cluster.http, cluster.frontends[0].url, chat("2", "silent"), X_Request_Id="r1") as stream:
            assert await stream.read_tokens(2) == "0 1 "
            worker.signal(signal.SIGSTOP)
            error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "response_timeout"
        assert "2 second" in error["message"]
        assert await cluster.inflight() == 0


async def test_a_disconnect_cancels_once_and_stops_the_engine(settings: Settings, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with running(settings, tmp_path, workers=0) as cluster:
        await cluster.worker("marked", "tests.engines:marked")
        body = chat(str(journal), "marked")
        async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id="r1") as stream:
            await stream.read_tokens(3)
        await wait_until(lambda: "stop r1 1" in journal.read_text(), timeout=5)
        record = await wait_until(lambda: _ended(cluster, "r1"))
        assert (record["status"], record["error_type"], record["cancel_mode"]) == ("cancelled", "cancelled", "kill")
        assert await cluster.metric("lifecycle_client_disconnects_total") == 1
        assert await cluster.metric("lifecycle_cancellations_total") == 1
        assert await cluster.metric("lifecycle_requests_total", error_type="cancelled") == 1
        assert await cluster.inflight() == 0


async def _ended(cluster: Cluster, rid: str) -> dict[str, Any] | None:
    record = await cluster.record(rid)
    return record if record["finished_at"] else None


async def test_a_cancel_at_another_replica_is_confirmed_when_the_engine_has_stopped(
    settings: Settings, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        a, b = cluster.frontends
        await cluster.worker("marked", "tests.engines:marked")
        async with post(cluster.http, a.url, chat(str(journal), "marked"), X_Request_Id="r1") as stream:
            await stream.read_tokens(3)
            answer = await cluster.http.post(
                b.url + "/v1/requests/r1/cancel", json={"reason": "enough", "wait_ms": 5000}
            )
            assert answer.status_code == 200
            assert journal.read_text().splitlines() == ["start r1 1", "stop r1 1"]
            error = error_of(await stream.read())
        assert error is not None
        assert (error["type"], error["code"], error["message"]) == ("request_cancelled", 499, "enough")
        assert answer.json()["status"] == "cancelled"
        assert await cluster.metric("lifecycle_client_disconnects_total", a) == 0
        assert await cluster.metric("lifecycle_cancellations_total", a) == 1
        again = await cluster.http.delete(b.url + "/v1/requests/r1")
        assert again.status_code == 200


async def test_a_stuck_engine_leaves_its_cancel_unconfirmed(make_settings: MakeSettings, tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with running(make_settings(kill_grace_secs=0.2), tmp_path, workers=0) as cluster:
        await cluster.worker("stubborn", "tests.engines:stubborn", concurrency=1)
        url = cluster.frontends[0].url
        async with post(cluster.http, url, chat(str(release), "stubborn"), X_Request_Id="r1") as stream:
            await stream.read_tokens(1)
            answer = await cluster.http.post(url + "/v1/requests/r1/cancel", json={"wait_ms": 500})
            assert answer.status_code == 202
            assert answer.json()["status"] == "running"

            async def stuck() -> bool:
                return await cluster.metric("lifecycle_engines_stuck", model="stubborn") == 1

            await wait_until(stuck)
            assert await cluster.inflight() == 1
            release.touch()
            record = await wait_until(lambda: _ended(cluster, "r1"))
        assert record["status"] == "cancelled"
        assert await cluster.inflight() == 0


async def test_a_stream_resumes_at_another_replica_from_any_token(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, frontends=2) as cluster:
        a, b = cluster.frontends
        words = " ".join(f"w{n}" for n in range(60))
        async with post(cluster.http, a.url, chat(words), X_Request_Id="r1", X_On_Disconnect="continue") as stream:
            before = await stream.read_tokens(7)
        async with resume(cluster.http, b.url, "r1", "1-7") as stream:
            events = await stream.read()
        assert before + text_of(events) == words
        assert error_of(events) is None
        assert [e.id for e in events if e.id] == [f"1-{n}" for n in range(8, 61)]
        async with resume(cluster.http, a.url, "r1") as stream:
            assert text_of(await stream.read()) == words
        assert (await cluster.record("r1", b))["status"] == "completed"


async def test_a_killed_worker_ends_the_stream_with_the_frame(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("paced", "tests.engines:paced")
        async with post(
            cluster.http, cluster.frontends[0].url, chat("1000 0.02", "paced"), X_Request_Id="r1"
        ) as stream:
            await stream.read_tokens(5)
            await worker.kill()
            error = error_of(await stream.read())
        assert error == {
            "message": STREAM_ENDED,
            "type": "internal_server_error",
            "code": 500,
            "param": None,
            "error_type": "worker_lost",
            "request_id": "r1",
        }
        assert await cluster.inflight() == 0


async def test_a_request_without_a_token_moves_to_another_worker(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        first = await cluster.worker("paced", "tests.engines:silent")
        async with post(cluster.http, cluster.frontends[0].url, chat("0", "paced"), X_Request_Id="r1") as stream:
            await wait_until(lambda: _running(cluster, "r1"))
            await cluster.worker("paced", "echo")  # before the other dies: a model without a worker is not waited for
            await first.kill()
            events = await stream.read()
        assert text_of(events) == "0"
        assert error_of(events) is None
        assert (await cluster.record("r1"))["attempt"] == 2


async def _running(cluster: Cluster, rid: str) -> bool:
    return bool((await cluster.record(rid))["status"] == "running")


async def test_a_killed_frontend_takes_its_share_along_and_its_requests_end(settings: Settings, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        a, b = cluster.frontends
        await cluster.worker("marked", "tests.engines:marked")
        with pytest.raises(httpx2.RemoteProtocolError):
            async with post(cluster.http, a.url, chat(str(journal), "marked"), X_Request_Id="r1") as stream:
                await stream.read_tokens(3)
                await a.kill()
                await stream.read()
        cluster.frontends.remove(a)

        async def gone() -> bool:
            return await cluster.inflight(b) == 0

        await wait_until(gone)
        record = await wait_until(lambda: _ended(cluster, "r1"))
        assert (record["status"], record["error_type"]) == ("failed", "frontend_lost")
        await wait_until(lambda: "stop r1 1" in journal.read_text())


async def test_a_continued_request_outlives_its_frontend(settings: Settings, tmp_path: Path) -> None:
    words = " ".join(f"w{n}" for n in range(80))
    async with running(settings, tmp_path, frontends=2) as cluster:
        a, b = cluster.frontends
        before = ""
        with pytest.raises(httpx2.RemoteProtocolError):
            async with post(cluster.http, a.url, chat(words), X_Request_Id="r1", X_On_Disconnect="continue") as stream:
                before = await stream.read_tokens(5)
                await a.kill()
                await stream.read()
        cluster.frontends.remove(a)

        async def moved() -> bool:
            return bool((await cluster.record("r1", b))["frontend"] == (await cluster.get("/health", b))["frontend"])

        await wait_until(moved)
        assert await cluster.inflight(b) == 1
        async with resume(cluster.http, b.url, "r1", "1-5") as stream:
            events = await stream.read()
        assert before + text_of(events) == words
        assert (await cluster.record("r1", b))["status"] == "completed"
        assert await cluster.inflight(b) == 0
        assert await cluster.metric("lifecycle_requests_total", b, status="success") == 1
        assert await cluster.metric("lifecycle_inflight_requests", b) == 0

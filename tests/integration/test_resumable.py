"""Workers that die mid-stream before an engine that can resume: the client sees one answer, with a pause in it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.store.transitions import Store
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.engines import STREAM_ENDED
from tests.sse import Stream, chat, error_of, post, resume, text_of
from tests.waiting import wait_until

ENGINE = "tests.engines:resumed"
COUNT = 120
BODY = chat(f"{COUNT} 0.02", "m")
WHOLE = "".join(f"{number} " for number in range(COUNT))


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Run a cluster whose requests stay queued even if there is no worker for longer than a lease."""
    settings = make_settings(max_attempts=3, queue_without_workers=True)
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        yield cluster


async def _rest(stream: Stream) -> list[Any]:
    async with asyncio.timeout(30):
        return await stream.read()


def _ids_go_on(stream: Stream) -> list[int]:
    """Attempts in the order seen; the numbers of all tokens are consecutive."""
    ids = [tuple(map(int, event.id.split("-"))) for event in stream.events if event.id]
    assert [number for _, number in ids] == list(range(1, len(ids) + 1))
    attempts = [attempt for attempt, _ in ids]
    assert attempts == sorted(attempts)
    return sorted(set(attempts))


async def test_a_worker_killed_mid_stream_costs_its_client_a_pause(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    a, b = cluster.frontends
    async with post(cluster.http, a.url, BODY, X_Request_Id="r1") as stream:
        before = await stream.read_tokens(10)
        await worker.kill()
        await cluster.worker("m", ENGINE)
        await _rest(stream)
    assert before == "0 1 2 3 4 5 6 7 8 9 "
    assert text_of(stream.events) == WHOLE
    assert error_of(stream.events) is None
    assert _ids_go_on(stream) == [1, 2]
    record = await cluster.record("r1", b)
    assert (record["status"], record["attempt"], record["output_tokens"]) == ("completed", 2, COUNT)
    assert record["first_token_at"] < record["started_at"] < record["finished_at"]
    assert await cluster.inflight() == 0
    assert await cluster.metric("lifecycle_requests_total", model="m") == 1
    assert await cluster.metric("lifecycle_output_tokens_total", model="m") == COUNT
    assert await cluster.metric("lifecycle_inflight_requests", model="m") == 0
    assert await cluster.metric("lifecycle_queued_requests", model="m") == 0


async def test_a_unary_answer_is_whole(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    url = cluster.frontends[0].url + "/v1/chat/completions"
    asking = asyncio.create_task(cluster.http.post(url, json=BODY | {"stream": False}, headers={"X-Request-Id": "r1"}))
    await wait_until(lambda: _has_tokens(cluster, 10))
    await worker.kill()
    await cluster.worker("m", ENGINE)
    answer = await asking
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == WHOLE


async def _has_tokens(cluster: Cluster, count: int, rid: str = "r1") -> bool:
    answer = await cluster.http.get(f"{cluster.frontends[-1].url}/v1/requests/{rid}")
    return answer.status_code == 200 and answer.json()["output_tokens"] >= count


async def _waits(cluster: Cluster, rid: str = "r1") -> bool:
    return bool((await cluster.record(rid))["status"] == "queued")


async def test_it_can_be_read_from_anywhere_before_between_and_after_its_attempts(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    a, b = cluster.frontends
    async with post(cluster.http, a.url, BODY, X_Request_Id="r1", X_On_Disconnect="continue") as stream:
        before = await stream.read_tokens(7)
    await worker.kill()
    await wait_until(lambda: _waits(cluster))
    assert (await cluster.record("r1"))["output_tokens"] >= 7
    async with (
        resume(cluster.http, b.url, "r1", "1-7") as between,
        resume(cluster.http, a.url, "r1") as from_the_start,
        resume(cluster.http, b.url, "r1", "1-4") as short,
    ):
        assert await short.read_tokens(3) == "4 5 6 "
        await cluster.worker("m", ENGINE)
        for reader, missing in ((between, before), (from_the_start, ""), (short, "0 1 2 3 ")):
            await _rest(reader)
            assert error_of(reader.events) is None
            assert missing + text_of(reader.events) == WHOLE
    for url in (a.url, b.url):
        async with resume(cluster.http, url, "r1", "1-7") as after:
            await _rest(after)
            assert before + text_of(after.events) == WHOLE
            assert error_of(after.events) is None
    last = [event.id for event in after.events if event.id][-1]
    assert last == f"2-{COUNT}"
    async with resume(cluster.http, a.url, "r1", f"2-{COUNT - 2}") as tail:
        await _rest(tail)
        assert text_of(tail.events) == f"{COUNT - 2} {COUNT - 1} "


async def _until_attempt(stream: Stream, attempt: int) -> None:
    """Its first token has come."""
    async for event in stream:
        if event.id and event.id.startswith(f"{attempt}-"):
            return


async def test_only_so_many_workers_may_die(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        for attempt in (1, 2):
            await _until_attempt(stream, attempt)
            await worker.kill()
            worker = await cluster.worker("m", ENGINE)
        await _until_attempt(stream, 3)
        await worker.kill()
        await _rest(stream)
    error = error_of(stream.events)
    assert error is not None
    assert (error["message"], error["error_type"]) == (STREAM_ENDED, "worker_lost")
    assert _ids_go_on(stream) == [1, 2, 3]
    assert WHOLE.startswith(text_of(stream.events))
    assert await cluster.inflight() == 0


async def test_a_drained_worker_passes_on_what_it_cannot_finish(cluster: Cluster) -> None:
    workers = [await cluster.worker("m", ENGINE, drain_timeout_secs=0.1) for _ in range(2)]
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        await stream.read_tokens(5)
        runs_at = (await cluster.record("r1"))["worker"]
        replicas = (await cluster.http.get(cluster.frontends[0].url + "/v1/replicas")).json()["data"]
        pid = next(replica["pid"] for replica in replicas if replica["id"] == runs_at)
        leaving = next(worker for worker in workers if worker.pid == pid)
        assert await leaving.terminate() == 0
        await _rest(stream)
    assert text_of(stream.events) == WHOLE
    assert error_of(stream.events) is None
    assert _ids_go_on(stream) == [1, 2]


async def test_a_worker_that_was_thought_dead_adds_nothing(cluster: Cluster) -> None:
    """It stands still for longer than its lease, then goes on, with tokens that it has not yet sent."""
    zombie = await cluster.worker("m", ENGINE)
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        await stream.read_tokens(5)
        zombie.signal(signal.SIGSTOP)
        await cluster.worker("m", ENGINE)
        await wait_until(lambda: _attempt_is(cluster, 2))
        zombie.signal(signal.SIGCONT)
        await _rest(stream)
    assert text_of(stream.events) == WHOLE
    assert error_of(stream.events) is None
    assert _ids_go_on(stream) == [1, 2]
    async with resume(cluster.http, cluster.frontends[1].url, "r1") as again:
        await _rest(again)
        assert text_of(again.events) == WHOLE


async def _attempt_is(cluster: Cluster, attempt: int, rid: str = "r1") -> bool:
    return bool((await cluster.record(rid))["attempt"] == attempt)


async def test_between_two_attempts_it_can_be_cancelled(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    a, b = cluster.frontends
    async with post(cluster.http, a.url, BODY, X_Request_Id="r1") as stream:
        await stream.read_tokens(5)
        await worker.kill()
        await wait_until(lambda: _waits(cluster))
        answer = await cluster.http.post(b.url + "/v1/requests/r1/cancel", json={"reason": "enough"})
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        await _rest(stream)
    error = error_of(stream.events)
    assert error is not None
    assert (error["message"], error["error_type"]) == ("enough", "cancelled")
    assert await cluster.inflight() == 0


async def test_a_lost_client_ends_it_between_two_attempts(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        await stream.read_tokens(5)
        await worker.kill()
        await wait_until(lambda: _waits(cluster))

    async def cancelled() -> bool:
        return bool((await cluster.record("r1"))["status"] == "cancelled")

    await wait_until(cancelled)
    assert await cluster.inflight() == 0


async def test_it_outlives_its_frontend_between_two_attempts(cluster: Cluster) -> None:
    """Its new owner takes it for what it is: waiting."""
    worker = await cluster.worker("m", ENGINE)
    a, b = cluster.frontends
    async with post(cluster.http, a.url, BODY, X_Request_Id="r1", X_On_Disconnect="continue") as stream:
        before = await stream.read_tokens(5)
    await worker.kill()
    await wait_until(lambda: _queued_at(cluster, a))
    await a.kill()
    cluster.frontends.remove(a)
    await wait_until(lambda: _queued_at(cluster, b, "lifecycle_queued_requests"))
    await cluster.worker("m", ENGINE)
    async with resume(cluster.http, b.url, "r1", "1-5") as rest:
        await _rest(rest)
    assert before + text_of(rest.events) == WHOLE
    assert await cluster.metric("lifecycle_queued_requests", b) == 0
    assert await cluster.metric("lifecycle_requests_total", b, status="success") == 1


async def _queued_at(cluster: Cluster, frontend: Process, name: str = "lifecycle_queued_requests") -> bool:
    return await cluster.metric(name, frontend, model="m") == 1


async def test_an_engine_that_would_begin_anew_does_not_get_it(cluster: Cluster) -> None:
    worker = await cluster.worker("m", ENGINE)
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        before = await stream.read_tokens(5)
        await worker.kill()
        await cluster.worker("m", "tests.engines:paced")
        await _rest(stream)
    error = error_of(stream.events)
    assert error is not None
    assert (error["message"], error["error_type"]) == (STREAM_ENDED, "worker_lost")
    assert text_of(stream.events).startswith(before)
    assert WHOLE.startswith(text_of(stream.events))


async def test_what_was_lost_on_the_way_is_not_spliced_over(cluster: Cluster, store: Store) -> None:
    """A token of the first attempt is missing in the stream when the second begins."""
    worker = await cluster.worker("m", ENGINE)
    async with post(cluster.http, cluster.frontends[0].url, BODY, X_Request_Id="r1") as stream:
        await stream.read_tokens(10)
        await worker.kill()
        await wait_until(lambda: _waits(cluster))
        key = store.keys.prefix_of("r1") + "tokens:r1"
        entries = await store.command("XRANGE", key, "1-3", "1-5")
        await store.command("XDEL", key, entries[0][0])
        await cluster.worker("m", ENGINE)
        await _rest(stream)
    error = error_of(stream.events)
    assert error is not None
    assert error["error_type"] == "state_lost"
    assert _ids_go_on(stream) == [1]
    assert await cluster.inflight() == 0

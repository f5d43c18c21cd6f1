"""Redis does not answer: frozen, loading, or gone for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis.exceptions

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import paced, straight_bench
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.processes import kept
from tests.servers import ask, info
from tests.sse import chat, error_of
from tests.waiting import wait_until

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_PROMPTLY_SECS = 10.0  # of a call that must not wait for Redis; generous


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0, config=getattr(request, "param", None)) as server, kept(server):
        yield server


@pytest.fixture
def redis_url(server: EmbeddedRedis) -> str:
    """The server of each test alone: these tests break it."""
    return server.url


async def _replica_ids(bench: Bench) -> set[str]:
    return {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}


async def _says_that_redis_is_away(bench: Bench, process: Process) -> None:
    """Every call is answered, none waits for Redis, and what cannot be known is not shown."""
    asked_at = time.monotonic()
    admission, listing, cancel, ready, live, metrics = await asyncio.gather(
        bench.http.post(process.url + "/v1/chat/completions", json=paced(1)),
        bench.http.get(process.url + "/v1/requests"),
        bench.http.post(process.url + "/v1/requests/nobody/cancel"),
        bench.http.get(process.url + "/ready"),
        bench.http.get(process.url + "/live"),
        bench.http.get(process.url + "/metrics"),
    )
    assert time.monotonic() - asked_at < _PROMPTLY_SECS
    for answer in (admission, listing, cancel):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "service_unavailable"
    assert (ready.status_code, live.status_code, metrics.status_code) == (503, 200, 200)
    assert "lifecycle_cluster_" not in metrics.text
    assert "lifecycle_inflight_requests" in metrics.text


async def _is_back(bench: Bench) -> None:
    for frontend in bench.frontends:

        async def back(frontend: Process = frontend) -> bool:
            ready = await bench.http.get(frontend.url + "/ready")
            metrics = await bench.http.get(frontend.url + "/metrics")
            return ready.status_code == 200 and "lifecycle_cluster_inflight_requests" in metrics.text

        await wait_until(back, timeout=20, what="a frontend that is ready and shows the cluster")


@pytest.mark.fault(
    "Redis is stopped with SIGSTOP for longer than a lease and continued with SIGCONT.",
    "Meanwhile admission and `/ready` answer 503, `/live` answers 200, and the cluster metrics are absent; "
    "afterwards no replica is expired, and the streams continue with the complete text.",
)
async def test_frozen_for_longer_than_a_lease(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=3.0, redis_timeout_secs=0.5)
    async with straight_bench(settings, tmp_path, workers=2) as bench:
        async with (
            bench.post(bench.frontends[0], paced(30), "r1") as first,
            bench.post(bench.frontends[1], paced(200, 0.05), "r2") as second,
        ):
            await first.read_tokens(3)
            await second.read_tokens(3)
            was = await _replica_ids(bench)
            healing.begins()
            frozen_at = time.monotonic()
            server.freeze()
            try:
                for frontend in bench.frontends:
                    await _says_that_redis_is_away(bench, frontend)
                await asyncio.sleep(frozen_at + settings.lease_secs * 1.3 - time.monotonic())
            finally:
                server.thaw()
            await _is_back(bench)
            events = await first.read()
            assert (text_of(events), error_of(events)) == (numbers(30), None)
            await second.read_tokens(3)
            healing.is_over()
            assert await _replica_ids(bench) == was
            await bench.renew_for(settings.lease_secs * 1.3)  # the grace is over, and still no replica has expired
            assert await _replica_ids(bench) == was
            events = await second.read()
        assert (text_of(events), error_of(events)) == (numbers(200), None)
        assert not any("fenced" in process.log.read_text() for process in (*bench.frontends, *bench.workers))


@pytest.mark.fault(
    "Clients disconnect while Redis is stopped for longer than a lease.",
    "Once Redis answers, their requests are cancelled, and those that may continue without a client complete.",
)
async def test_clients_leave_while_redis_is_frozen(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=3.0, redis_timeout_secs=0.5)
    async with straight_bench(settings, tmp_path, workers=2) as bench:
        first, second = bench.frontends
        async with (
            bench.post(first, paced(1000, 0.05), "left") as left,
            bench.post(second, paced(200, 0.05), "goes-on", X_On_Disconnect="continue") as goes_on,
            bench.post(first, paced(1000, 0.05), "read-elsewhere") as brought,
            bench.resume(second, "read-elsewhere") as reader,
        ):
            for stream in (left, goes_on, brought, reader):
                await stream.read_tokens(3)
            server.freeze()
            left_at = time.monotonic()
            for stream in (left, goes_on, brought, reader):
                await stream.response.aclose()
            await asyncio.sleep(left_at + settings.lease_secs * 1.5 - time.monotonic())
            healing.begins()
            server.thaw()
            for rid in ("left", "read-elsewhere"):
                await bench.status(rid, "cancelled")
            healing.is_over()
        await bench.status("goes-on", "completed")


@pytest.mark.fault(
    "Redis is killed or stopped and does not return.",
    "Within about two leases every stream ends with `unavailable` and the engines stop; when Redis returns, "
    "everything works again.",
)
@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_stays_away(
    how: str, make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(redis_timeout_secs=0.5, sse_keepalive_secs=300.0)
    journal = tmp_path / "journal"
    async with straight_bench(settings, tmp_path, may_lose=how == "kill", consequences_secs=None) as bench:
        await bench.worker("marked", "tests.engines:marked", redis_url=settings.redis_url)
        await bench.worker("silent", "tests.engines:silent", redis_url=settings.redis_url)
        first, second = bench.frontends
        async with (
            bench.post(first, chat(str(journal), "marked"), "talks") as talks,
            bench.post(first, chat("1", "silent"), "silent") as silent,
            bench.post(
                first,
                chat(
                    "1",
                    "silent",
                ),
                "left",
                X_On_Disconnect="continue",
            ) as left,
            bench.resume(second, "talks") as resumed,
        ):
            streams = (talks, silent, left, resumed)
            for stream in streams:
                await stream.read_tokens(1)
            unary = asyncio.create_task(
                bench.http.post(second.url + "/v1/chat/completions", json=chat("1", "silent") | {"stream": False})
            )

            async def four() -> bool:
                return await bench.inflight() == 4

            await wait_until(four)
            healing.begins()
            server.kill() if how == "kill" else server.freeze()
            try:
                for stream in streams:
                    error = error_of(await stream.read())
                    assert error is not None
                    assert (error["error_type"], error["code"]) == ("unavailable", 503)
                answer = await unary
                assert (answer.status_code, answer.json()["error"]["type"]) == (503, "service_unavailable")
                await wait_until(lambda: "stop talks 1" in journal.read_text(), what="the engine's end")
                for frontend in bench.frontends:
                    await _says_that_redis_is_away(bench, frontend)
                    assert await bench.metric("lifecycle_inflight_requests", frontend) == 0
                healing.is_over()
            finally:
                server.start() if how == "kill" else server.thaw()
        await _is_back(bench)

        async def served() -> bool:
            models = (await bench.get("/v1/models"))["data"]
            return {model["id"] for model in models} >= {"paced", "marked", "silent"}

        await wait_until(served, timeout=20, what="workers that are back")
        for number, frontend in enumerate(bench.frontends):
            async with bench.post(frontend, paced(5), f"afterwards-{number}") as stream:
                events = await stream.read()
            assert (text_of(events), error_of(events)) == (numbers(5), None)
        answer = await bench.http.post(first.url + "/v1/requests/left/cancel", json={"wait_ms": 15_000})
        assert answer.status_code == (404 if how == "kill" else 200)
        await bench.quiet()


@pytest.mark.fault(
    "Every process receives SIGTERM while Redis is unavailable.",
    "Each process ends nevertheless.",
)
async def test_processes_end_without_redis(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(redis_timeout_secs=0.5)
    async with straight_bench(settings, tmp_path, may_lose=True, leaves_inflight=True) as bench:
        async with bench.post(bench.frontends[0], paced(100_000), "r1") as stream:
            await stream.read_tokens(1)
            server.kill()
            await stream.read()
        await wait_until(
            lambda: all("fenced" in process.log.read_text() for process in (*bench.frontends, *bench.workers)),
            what="fenced replicas",
        )
        healing.begins()
        for process in (*bench.frontends, *bench.workers):
            assert await process.terminate() == 0
        healing.is_over()
        server.start()


@pytest.mark.fault(
    "Redis loads its data for longer than a lease.",
    "Calls receive 503 meanwhile; no replica is expired, and the streams continue with the complete text.",
)
@pytest.mark.parametrize(
    "server", [DURABLE | {"loading-process-events-interval-bytes": "1024"}], indirect=True, ids=[""]
)
async def test_loading(make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(lease_secs=3.0, redis_timeout_secs=0.5)
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(100), "r1") as stream,
    ):
        await stream.read_tokens(3)
        was = await _replica_ids(bench)
        ask(server, "EVAL", "for n = 1, 2000 do redis.call('SET', 'filler:' .. n, 'x') end", 0)
        ask(server, "BGREWRITEAOF")  # a snapshot: while it loads one, a server answers every so many bytes
        await wait_until(lambda: info(server, "persistence")["aof_rewrite_in_progress"] == "0")
        healing.begins()
        server.kill()
        server._config["key-load-delay"] = "2000"  # microseconds a key: four seconds
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        await wait_until(lambda: _loads(server), what="a server that loads")
        await _says_that_redis_is_away(bench, bench.frontends[0])
        await starting
        events = await stream.read()
        await _is_back(bench)
        healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(100), None)
        assert await _replica_ids(bench) == was


def _loads(server: EmbeddedRedis) -> bool:
    try:
        ask(server, "PING")
    except redis.exceptions.BusyLoadingError:
        return True
    except (redis.exceptions.RedisError, OSError, RuntimeError):
        return False
    return False


@pytest.mark.fault(
    "The access rules of Redis forbid one command for longer than two leases, and allow it again.",
    "Meanwhile admission and `/ready` answer 503, and `/ready` and `doctor` name the command; within about two leases "
    "every stream ends with an error frame and the engines stop; afterwards nothing is inflight, and everything works "
    "again.",
)
@pytest.mark.parametrize("command", ["xadd", "hset", "publish"])
async def test_a_command_is_forbidden(
    command: str, make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(redis_timeout_secs=0.5, sse_keepalive_secs=300.0)
    async with straight_bench(settings, tmp_path, workers=1, consequences_secs=None) as bench:
        first, second = bench.frontends
        async with (
            bench.post(first, paced(100_000, 0.02), "r1") as own,
            bench.post(second, paced(100_000, 0.02), "r2", X_On_Disconnect="continue") as left,
        ):
            for stream in (own, left):
                await stream.read_tokens(3)
            healing.begins()
            ask(server, "ACL", "SETUSER", "default", f"-{command}")

            async def is_told(frontend: Process) -> bool:
                answer = await bench.http.get(frontend.url + "/ready")
                return answer.status_code == 503 and f"+{command}" in answer.json()["reason"]

            for frontend in bench.frontends:
                await wait_until(partial(is_told, frontend), what="a frontend that names the command")
            for stream in (own, left):
                error = error_of(await stream.read())
                assert error is not None
                assert error["error_type"] in ("unavailable", "worker_lost", "frontend_lost")
            for frontend in bench.frontends:
                answer = await bench.http.post(frontend.url + "/v1/chat/completions", json=paced(1))
                assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True), answer.text
                assert await is_told(frontend)
            healing.is_over()
            ask(server, "ACL", "SETUSER", "default", f"+{command}")
        await _is_back(bench)
        async with bench.post(first, paced(5), "afterwards") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        await bench.http.post(first.url + "/v1/requests/r2/cancel", json={"wait_ms": 15_000})
        await bench.quiet()

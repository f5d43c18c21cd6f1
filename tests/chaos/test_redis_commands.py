"""Single things done to Redis while it works: connections killed, clients paused, scripts flushed, memory full, …"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import REFUSED, WHOLE, Load, paced, straight_bench
from tests.chaos.operators import lifecycle
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.servers import ask
from tests.sse import error_of
from tests.waiting import wait_until


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as server:
        yield server


@pytest.fixture
def redis_url(server: EmbeddedRedis) -> str:
    """The server of each test alone: these tests break it."""
    return server.url


@pytest.mark.fault(
    "`CLIENT KILL` closes every connection to Redis, several times.",
    "Every stream is complete, and no call is refused.",
)
async def test_connections_are_killed(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    async with straight_bench(settings, tmp_path) as bench, Load(bench) as load:
        healing.begins()
        for kind, least in (("normal", 3), ("pubsub", 1)):  # of two frontends and a worker; of the worker alone
            for _ in range(4):
                await wait_until(partial(_connected, server, kind, least), what=f"{least} connections")
                assert int(ask(server, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")) > 0
                await load.whole(3)
        healing.is_over()
    assert set(load.kinds) == {WHOLE}


def _connected(server: EmbeddedRedis, kind: str, least: int) -> bool:
    return len(str(ask(server, "CLIENT", "LIST", "TYPE", kind)).splitlines()) >= least


@pytest.mark.fault(
    "A request is cancelled right after `CLIENT KILL TYPE pubsub`.",
    "Its engine stops nevertheless.",
)
async def test_a_cancel_whose_message_met_no_subscriber(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(100_000), "r1") as stream,
    ):
        await stream.read_tokens(2)
        healing.begins()
        ask(server, "CLIENT", "KILL", "TYPE", "pubsub")
        answer = await bench.http.post(bench.frontends[1].url + "/v1/requests/r1/cancel", json={"wait_ms": 15_000})
        healing.is_over()
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "cancelled"


@pytest.mark.fault(
    "`CLIENT PAUSE` and `SCRIPT FLUSH` are executed.",
    "Every stream is complete.",
)
async def test_paused_and_flushed(settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    async with straight_bench(settings, tmp_path) as bench, Load(bench) as load:
        healing.begins()
        for command in ("CLIENT PAUSE 700 ALL", "CLIENT PAUSE 700 WRITE", "SCRIPT FLUSH SYNC"):
            ask(server, *command.split())
            await load.whole(6)
        healing.is_over()
    assert set(load.kinds) <= {WHOLE, REFUSED}


async def _is_refused(bench: Bench, process: Process) -> bool:
    """An admission is answered 503, with Retry-After and promptly, and `/ready` and `/live` say what is so."""
    asked_at = time.monotonic()
    answer = await bench.http.post(process.url + "/v1/chat/completions", json=paced(1))
    assert time.monotonic() - asked_at < 10
    if answer.status_code != 503:
        return False
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "service_unavailable"
    assert (await bench.http.get(process.url + "/live")).status_code == 200
    return True


@pytest.mark.fault(
    "Redis is demoted to a replica (`READONLY`) and promoted again.",
    "Admission answers 503 meanwhile; afterwards the streams continue with the complete text.",
)
async def test_read_only_for_a_while(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=4.0, redis_timeout_secs=0.5)
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(60), "r1") as stream,
    ):
        await stream.read_tokens(3)
        was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
        healing.begins()
        ask(server, "REPLICAOF", "127.0.0.1", 1)
        for frontend in bench.frontends:
            assert await _is_refused(bench, frontend)
            await _ready_is(bench, frontend, 503)
        ask(server, "REPLICAOF", "NO", "ONE")
        events = await stream.read()
        for frontend in bench.frontends:
            await _ready_is(bench, frontend, 200)
        healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(60), None)
        assert {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was


async def _ready_is(bench: Bench, process: Process, status: int) -> None:
    async def said() -> bool:
        return (await bench.http.get(process.url + "/ready")).status_code == status

    await wait_until(said, what=f"/ready being {status}")


async def _fill(server: EmbeddedRedis) -> None:
    ask(server, "CONFIG", "SET", "maxmemory", "1")


async def _empty(server: EmbeddedRedis) -> None:
    ask(server, "CONFIG", "SET", "maxmemory", "0")


@pytest.mark.fault(
    "Redis is out of memory (`noeviction`).",
    "Admission answers 503; what runs goes on to its end, and cancelling works.",
)
async def test_out_of_memory(settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(40), "r1") as goes_on,
        bench.post(bench.frontends[1], paced(100_000), "r2") as cancelled,
    ):
        await goes_on.read_tokens(3)
        await cancelled.read_tokens(3)
        was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
        healing.begins()
        await _fill(server)
        assert await _is_refused(bench, bench.frontends[0])
        answer = await bench.http.post(bench.frontends[0].url + "/v1/requests/r2/cancel", json={"wait_ms": 15_000})
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        error = error_of(await cancelled.read())
        assert error is not None
        assert error["error_type"] == "cancelled"
        events = await goes_on.read()
        healing.is_over()
        await bench.renew_for(settings.lease_secs * 1.5)  # heartbeats go on, no replica expires
        assert {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was
        await _empty(server)
        assert (text_of(events), error_of(events)) == (numbers(40), None)


@pytest.mark.fault(
    "An engine ends while Redis is out of memory.",
    "Its request finishes, with its last tokens.",
)
async def test_a_request_ends_while_memory_is_full(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    async with (
        straight_bench(settings, tmp_path) as bench,
        bench.post(bench.frontends[0], paced(15), "r1") as stream,
    ):
        await stream.read_tokens(3)
        healing.begins()
        await _fill(server)
        try:
            assert (await bench.ended("r1"))["status"] == "completed"
            events = await stream.read()
        finally:
            await _empty(server)
        healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(15), None)
        await bench.quiet()
        assert (await bench.execute("GET", bench.key("epoch"))) is not None


@pytest.mark.fault(
    "Redis runs out of memory several times under load.",
    "Each client receives its complete text or 503.",
)
async def test_memory_comes_and_goes_under_load(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    async with straight_bench(settings, tmp_path) as bench, Load(bench) as load:
        healing.begins()
        for _ in range(3):
            await _fill(server)
            refused = load.kinds[REFUSED]
            await wait_until(lambda: load.kinds[REFUSED] > refused)  # noqa: B023
            await _empty(server)
            await load.whole(4)
        healing.is_over()
    assert set(load.kinds) == {WHOLE, REFUSED}


@pytest.mark.fault(
    "Redis has an eviction policy that can remove live requests.",
    "Every replica logs a warning, and `doctor` fails.",
)
async def test_the_wrong_eviction_policy(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    ask(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    ask(server, "CONFIG", "SET", "maxmemory", "1gb")
    healing.begins()
    async with straight_bench(settings, tmp_path, frontends=1) as bench:
        for process in (*bench.frontends, *bench.workers):
            warnings = [line for line in process.log.read_text().splitlines() if "maxmemory-policy" in line]
            assert len(warnings) == 1
            assert "allkeys-lru" in warnings[0]
        doctor = await lifecycle(settings, "doctor", "--json")
        assert doctor.status == 1
        (finding,) = [f for f in json.loads(doctor.output)["findings"] if f["check"] == "eviction"]
        assert (finding["level"], finding["message"]) == ("fail", "allkeys-lru")
        healing.is_over()


@pytest.mark.fault(
    "Redis forbids `INFO` and `CONFIG`, as managed services do.",
    "Everything works.",
)
async def test_a_server_that_does_not_describe_itself(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    ask(server, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info", "-config")
    settings = make_settings(redis_url=server.url.replace("redis://", "redis://app:secret@"))
    healing.begins()
    async with straight_bench(settings, tmp_path, frontends=1) as bench:
        async with bench.post(bench.frontends[0], paced(3), "r1") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (numbers(3), None)
        healing.is_over()
        for process in (*bench.frontends, *bench.workers):
            assert '"level":"warning"' not in process.log.read_text()
        doctor = await lifecycle(settings, "doctor", "--json")
        (finding,) = [f for f in json.loads(doctor.output)["findings"] if f["check"] == "version"]
        assert (finding["level"], "INFO" in finding["message"]) == ("warn", True)

"""Redis loses everything, or is killed and comes back with what it has written down."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import REFUSED, WHOLE, Load, paced, straight_bench
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.processes import kept
from tests.servers import ask
from tests.sse import Stream, chat, error_of
from tests.waiting import wait_until

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_MOST_LOG_LINES = 100  # of one process: an error that is repeated for ever would fill its log


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """Use a Unix socket, so that clients meet a missing file as well as a closed port."""
    with EmbeddedRedis(port=None, config=getattr(request, "param", None)) as server, kept(server):
        yield server


@pytest.fixture
def redis_url(server: EmbeddedRedis) -> str:
    """The server of each test alone: these tests break it."""
    return server.url


async def _idle(bench: Bench) -> None:
    """No gauge of any process shows anything, and no slot is taken."""

    async def settled() -> bool:
        gauges = [await bench.metric("lifecycle_inflight_requests", f) for f in bench.frontends]
        held = [replica["inflight"] for replica in (await bench.get("/v1/replicas"))["data"]]
        return not any(gauges) and not any(held) and await bench.inflight() == 0

    await wait_until(settled, what="gauges at zero")


def _assert_quiet_logs(bench: Bench) -> None:
    for process in (*bench.frontends, *bench.workers):
        text = process.log.read_text()
        lines = [line for line in text.splitlines() if '"level":"info"' not in line]
        assert len(lines) < _MOST_LOG_LINES, "\n".join(lines[:5] + lines[-20:])
        assert "Traceback" not in text, text


async def _works(bench: Bench) -> None:
    """Every frontend serves: at the latest once the workers have beaten again."""
    numbered = itertools.count()

    async def serves(frontend: Process) -> bool:
        async with bench.post(frontend, paced(5), f"afterwards-{next(numbered)}") as stream:
            if stream.response.status_code == 503:
                return False
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        return True

    for frontend in bench.frontends:
        await wait_until(partial(serves, frontend), what="a frontend that serves")


@pytest.mark.fault(
    "Redis is restarted without its data, mid-stream.",
    "Every stream ends with `state_lost`, the engines stop, the gauges fall, and new requests work within one "
    "heartbeat.",
)
async def test_restarted_empty(
    make_settings: MakeSettings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    journal = tmp_path / "journal"
    settings = make_settings(sse_keepalive_secs=300.0)  # nobody finds out by looking now and then
    async with straight_bench(settings, tmp_path, may_lose=True) as bench, AsyncExitStack() as stack:
        await bench.worker("single", "tests.engines:marked", concurrency=1, redis_url=settings.redis_url)
        await bench.worker("silent", "tests.engines:silent", concurrency=1, redis_url=settings.redis_url)
        first, second = bench.frontends
        streams: dict[str, Stream] = {}
        for rid, frontend, body in (
            ("talks", first, paced(100_000)),
            ("journaled", second, chat(str(journal), "single")),
            ("silent", first, chat("1", "silent")),
        ):
            streams[rid] = await stack.enter_async_context(bench.post(frontend, body, rid))
            await streams[rid].read_tokens(1)
        streams["queued"] = await stack.enter_async_context(bench.post(second, chat("1", "silent"), "queued"))
        streams["resumed"] = await stack.enter_async_context(bench.resume(second, "talks"))
        await streams["resumed"].read_tokens(1)
        assert await bench.inflight() == 4
        healing.begins()
        server.restart()
        for rid, stream in streams.items():
            error = error_of(await stream.read())
            assert error is not None, rid
            assert (error["error_type"], error["code"]) == ("state_lost", 503), rid
        await wait_until(lambda: "stop journaled 1" in journal.read_text(), what="the engine's end")
        await _works(bench)
        async with bench.post(first, chat("1", "silent"), "again") as stream:
            await stream.read_tokens(1)  # the slot is free again
        await _idle(bench)
        healing.is_over()
        _assert_quiet_logs(bench)


@pytest.mark.fault(
    "`FLUSHALL` is executed several times under load.",
    "Each client receives its complete text, `state_lost` or 503; afterwards the service works again.",
)
async def test_flushed_under_load(settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    async with straight_bench(settings, tmp_path, may_lose=True) as bench, Load(bench) as load:
        healing.begins()
        for _ in range(3):
            ask(server, "FLUSHALL")
            await load.whole(6)
        healing.is_over()
        await load.whole(1)
    assert set(load.kinds) <= {WHOLE, REFUSED, "state_lost"}
    _assert_quiet_logs(bench)


@pytest.mark.fault(
    "Redis is restarted or killed, and has an append-only file.",
    "The streams continue; nothing is lost or repeated.",
)
@pytest.mark.parametrize("server", [DURABLE], indirect=True, ids=["appendonly"])
async def test_comes_back_with_its_data(
    settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing
) -> None:
    async with straight_bench(settings, tmp_path) as bench:
        async with (
            bench.post(bench.frontends[0], paced(90), "r1") as posted,
            bench.post(bench.frontends[1], paced(60), "r2", X_On_Disconnect="continue") as left,
        ):
            await posted.read_tokens(3)
            await left.read_tokens(3)
            was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
            healing.begins()
            server.restart()
            await posted.read_tokens(3)
            server.kill()
            server.start()
            events = await posted.read()
            assert (text_of(events), error_of(events)) == (numbers(90), None)
        assert (await bench.ended("r2"))["status"] == "completed"
        async with bench.resume(bench.frontends[0], "r2") as stream:
            events = await stream.read()
        healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(60), None)
        assert {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was
        await _works(bench)
        await _idle(bench)
        _assert_quiet_logs(bench)


@pytest.mark.fault(
    "Redis is killed and started again under load, and has an append-only file.",
    "Each client receives its complete text or 503.",
)
@pytest.mark.parametrize("server", [DURABLE], indirect=True, ids=["appendonly"])
async def test_killed_under_load(settings: Settings, server: EmbeddedRedis, tmp_path: Path, healing: Healing) -> None:
    async with straight_bench(settings, tmp_path) as bench, Load(bench) as load:
        healing.begins()
        for _ in range(3):
            server.kill()
            server.start()
            await load.whole(6)
        healing.is_over()
    assert set(load.kinds) <= {WHOLE, REFUSED}
    _assert_quiet_logs(bench)

"""A primary behind Sentinels: failed over cleanly, frozen and stale, killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import LOST, REFUSED, WHOLE, Load, paced, straight_bench
from tests.chaos.operators import lifecycle
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.processes import kept
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask
from tests.sse import error_of
from tests.waiting import wait_until


@pytest.fixture
def sentinels() -> Iterator[SentinelSetup]:
    with SentinelSetup() as setup, kept(*setup.servers, *setup.sentinels):
        yield setup


@pytest.fixture
def redis_url(sentinels: SentinelSetup) -> str:
    return sentinels.url


async def _is_right(bench: Bench) -> None:
    """Every frontend is ready and nothing is counted that does not run."""
    for frontend in bench.frontends:

        async def right(frontend: Process = frontend) -> bool:
            if (await bench.http.get(frontend.url + "/ready")).status_code != 200:
                return False
            return await bench.metric("lifecycle_inflight_requests", frontend) == 0 == await bench.inflight(frontend)

        await wait_until(right, timeout=20, what="a ready frontend with nothing inflight")


@pytest.mark.fault(
    "Sentinel performs a regular failover under load.",
    "Each client receives its complete text, an error frame or 503; no call hangs, and afterwards the service "
    "works again.",
)
async def test_failed_over_cleanly(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=2.0, redis_timeout_secs=1.0)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with Load(bench) as load:
            await load.whole(3)
            healing.begins()
            await sentinels.fail_over()
            await load.whole(6)
            healing.is_over()
            await sentinels.fail_over()
            await load.whole(6)
        assert set(load.kinds) <= {WHOLE, REFUSED} | LOST
        assert load.kinds[WHOLE] >= 15
        await _is_right(bench)


@pytest.mark.fault(
    "The primary stops responding, is replaced, and then continues as an outdated primary.",
    "Each client receives its text or an error frame; writes that only the outdated primary received are gone, "
    "and no replica uses it any more.",
)
async def test_off_a_frozen_primary_that_thaws(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=2.0, redis_timeout_secs=1.0)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with Load(bench) as load:
            await load.whole(3)
            stale = sentinels.primary
            healing.begins()
            stale.freeze()
            try:
                await sentinels.agreed()
                await load.whole(6)
                healing.is_over()
            finally:
                stale.thaw()
            await load.whole(6)
            await sentinels.rejoined()
            await load.whole(6)
        assert set(load.kinds) <= {WHOLE, REFUSED} | LOST
        await _is_right(bench)
        assert ask(stale, "ROLE")[0] == "slave"


@pytest.mark.fault(
    "The primary behind the Sentinels is killed mid-stream.",
    "Each client receives its text or an error frame; the replica takes over, and the counts are right.",
)
async def test_the_primary_is_killed_mid_stream(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=6.0, redis_timeout_secs=1.0)  # two of them outlast any election
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with (
            bench.post(bench.frontends[0], paced(150, 0.03), "r1") as one,
            bench.post(bench.frontends[1], paced(150, 0.03), "r2") as other,
        ):
            await one.read_tokens(3)
            await other.read_tokens(3)
            was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
            healing.begins()
            sentinels.primary.kill()
            for stream in (one, other):
                events = await stream.read()
                error = error_of(events)
                if error is None:
                    assert text_of(events) == numbers(150)
                else:
                    assert error["error_type"] in LOST
            healing.is_over()
        await _is_right(bench)
        await sentinels.agreed()

        async def listed() -> bool:
            return {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was

        # A failover is shorter than two leases and begins a grace: no replica expires because of it.
        await wait_until(listed, what="every replica in the list, under its id")
        async with bench.post(bench.frontends[0], paced(5), "afterwards") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        sentinels.replica.start()
        await sentinels.rejoined()


async def test_the_command_line_finds_the_primary(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path
) -> None:
    settings = make_settings()
    async with straight_bench(settings, tmp_path, frontends=1) as bench:
        async with bench.post(bench.frontends[0], paced(100_000), "r1", X_On_Disconnect="continue") as stream:
            await stream.read_tokens(1)
        shown = await lifecycle(settings, "ps", "--json")
        assert [record["id"] for record in json.loads(shown.output)["data"]] == ["r1"]
        counted = await lifecycle(settings, "inflight", "--json")
        assert json.loads(counted.output)["total"] == 1
        assert (await lifecycle(settings, "doctor")).status == 0
        assert (await lifecycle(settings, "cancel", "r1", "--wait")).status == 0
        assert (await lifecycle(settings, "tail", "r1")).status == 1

"""A failover to a replica that has not the last writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.bench import Bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import LOST, REFUSED, WHOLE, Load, paced, straight_bench
from tests.chaos.signatures import text_of
from tests.chaos.soak.lag import lagging
from tests.conftest import MakeSettings
from tests.processes import kept
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask
from tests.sse import Stream, chat, error_of
from tests.waiting import wait_until

_TOKENS = 30


@pytest.fixture
def sentinels() -> Iterator[SentinelSetup]:
    # A Sentinel does not promote a replica whose link was down for ten times as long.
    with SentinelSetup(down_after_ms=2000) as setup, kept(*setup.servers, *setup.sentinels):
        yield setup


@pytest.fixture
def redis_url(sentinels: SentinelSetup) -> str:
    return sentinels.url


def _gated(gate: Path, pause_secs: float = 0.02) -> dict[str, Any]:
    return chat(f"{gate} {_TOKENS} {pause_secs}", "gated")


def _starts(gate: Path) -> list[str]:
    """Return the lines that the engine has noted for its starts behind this gate."""
    journal = Path(f"{gate}.journal")
    return [line for line in journal.read_text().splitlines() if line.startswith("start")] if journal.exists() else []


async def _cancel(bench: Bench, rid: str) -> str:
    url = f"{bench.frontends[1].url}/v1/requests/{rid}/cancel"
    answer = await bench.http.post(url, json={"wait_ms": 10_000})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


@pytest.mark.fault(
    "A replica that has missed the last writes is promoted: starts, tokens, ends and a cancel are lost.",
    "Each client receives the whole text of one chain of attempts, an error frame or 503; what had ended ends again "
    "and runs once (as `state_lost` if its tokens are lost too); the cancel holds; the counts are right.",
)
async def test_a_replica_that_lags_is_promoted(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=20.0, redis_timeout_secs=1.0)  # two of them outlast any election
    gates = {rid: tmp_path / rid for rid in ("ends", "cancelled", "begins")}
    async with straight_bench(settings, tmp_path, workers=2, may_lose=True) as bench, AsyncExitStack() as stack:
        for _ in range(2):
            await bench.worker("gated", "tests.chaos.engines:gated", redis_url=settings.redis_url)
        streams: dict[str, Stream] = {}

        async def begin(rid: str, body: dict[str, Any], frontend: int = 0) -> None:
            streams[rid] = await stack.enter_async_context(bench.post(bench.frontends[frontend], body, rid))

        await begin("goes-on", paced(120, 0.03))
        await begin("ends", _gated(gates["ends"]))
        await begin("cancelled", _gated(gates["cancelled"]), 1)
        await streams["goes-on"].read_tokens(3)
        await wait_until(lambda: _starts(gates["ends"]) and _starts(gates["cancelled"]), what="both engines")
        async with Load(bench) as load:
            victim = sentinels.primary
            with lagging(sentinels.replica, victim):
                await begin("begins", _gated(gates["begins"], 0.1))
                for rid in ("ends", "begins"):
                    gates[rid].touch()
                await streams["begins"].read_tokens(3)
                events = await streams["ends"].read()
                assert (text_of(events), error_of(events)) == (numbers(_TOKENS), None)
                assert await _cancel(bench, "cancelled") == "cancelled"
                await load.whole(6)
                healing.begins()
                victim.kill()
                await sentinels.agreed()
            await load.whole(6)
            for rid, length in (("goes-on", 120), ("begins", _TOKENS)):
                events = await streams[rid].read()
                error = error_of(events)
                assert (text_of(events) == numbers(length)) if error is None else error["error_type"] in LOST, rid
            ended = await bench.ended("ends")
            assert (ended["status"], ended["error_type"]) in {("completed", ""), ("failed", "state_lost")}
            assert (await bench.ended("cancelled"))["status"] == "cancelled"
            healing.is_over()
            assert [len(_starts(gates[rid])) for rid in ("ends", "cancelled")] == [1, 1]
            victim.start()
            await sentinels.rejoined()
            await load.whole(6)
        assert set(load.kinds) <= {WHOLE, REFUSED} | LOST
        await bench.quiet()


@pytest.mark.fault(
    "The primary is killed right after a cancel was answered, with `LIFECYCLE_WAIT_REPLICAS=1` and a replica that was "
    "behind.",
    "The cancel is answered once the replica has it, so the new primary has it too; everything else continues.",
)
async def test_what_a_replica_has_confirmed_outlives_the_primary(
    make_settings: MakeSettings, sentinels: SentinelSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=20.0, redis_timeout_secs=4.0, wait_replicas=1, wait_timeout_ms=2000)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        await bench.worker("gated", "tests.chaos.engines:gated", redis_url=settings.redis_url)
        gate, record = tmp_path / "gate", bench.key("request:r1", "r1")
        primary, replica = sentinels.primary, sentinels.replica
        async with (
            bench.post(bench.frontends[0], _gated(gate), "r1") as stream,
            bench.post(bench.frontends[1], paced(120, 0.03), "r2") as other,
        ):
            await wait_until(lambda: _starts(gate), what="the engine")
            await other.read_tokens(3)
            replica.freeze()
            try:
                cancelling = asyncio.create_task(_cancel(bench, "r1"))
                await wait_until(lambda: ask(primary, "HGET", record, "cancel_mode"), what="the cancel")
                assert not cancelling.done()
            finally:
                replica.thaw()
            assert await cancelling == "cancelled"
            healing.begins()
            primary.kill()
            assert ask(replica, "HGET", record, "cancel_mode") == "kill"  # before it is promoted
            error = error_of(await stream.read())
            assert error is not None
            assert error["error_type"] == "cancelled"
            events = await other.read()
            error = error_of(events)
            assert (text_of(events) == numbers(120)) if error is None else error["error_type"] in LOST
        await sentinels.agreed()
        assert (await bench.ended("r1"))["status"] == "cancelled"
        healing.is_over()
        assert len(_starts(gate)) == 1
        primary.start()
        await sentinels.rejoined()
        await bench.quiet()

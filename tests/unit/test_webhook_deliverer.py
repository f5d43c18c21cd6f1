"""The deliverer over a store: when it asks Redis, how long it waits, and what it counts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lifecycle.aio import tasks
from lifecycle.cli.doctor.finding import Finding, Level
from lifecycle.cli.doctor.requests import check_requests
from lifecycle.settings import load
from lifecycle.store import script_loader
from lifecycle.telemetry.metrics import Metrics
from lifecycle.webhooks.config import WebhookConfig
from lifecycle.webhooks.deliverer import WebhookDeliverer, pause_after
from tests.receiver import SECRET, receiving
from tests.unit.test_webhook_outbox import URL, end
from tests.unit.world import World
from tests.waiting import wait_until


@asynccontextmanager
async def delivering(world: World, metrics: Metrics) -> AsyncIterator[WebhookDeliverer]:
    settings = {"webhook_hosts": "127.0.0.1", "webhook_secret": SECRET, "webhook_private_addresses": True}
    config = WebhookConfig.of(load(settings))
    assert config is not None
    deliverer = WebhookDeliverer(world.store, metrics, config)
    running = asyncio.create_task(deliverer.run())
    try:
        yield deliverer
        await deliverer.drain(5.0)
    finally:
        await tasks.end([running])


def claims(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record when each claim is sent."""
    found, execute = list[float](), world.store.commands.execute

    async def watched(*args: Any) -> Any:
        if len(args) > 1 and args[1] == world.store._scripts["claim_webhooks"].sha:
            found.append(time.monotonic())
        return await execute(*args)

    monkeypatch.setattr(world.store.commands, "execute", watched)
    assert "claim_webhooks" in script_loader.names()
    return found


async def test_while_nothing_ends_it_asks_once_in_a_heartbeat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat_secs = 0.1
    world.store.settings = world.store.settings.model_copy(update={"heartbeat_secs": heartbeat_secs})
    asked = claims(world, monkeypatch)
    async with delivering(world, Metrics()):
        await wait_until(lambda: len(asked) >= 6)
    assert asked[5] - asked[0] >= 5 * heartbeat_secs * 0.75


async def test_the_end_of_an_own_request_is_reported_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat of this world is 10 seconds."""
    asked = claims(world, monkeypatch)
    async with receiving() as receiver, delivering(world, metrics := Metrics()) as deliverer:
        await wait_until(lambda: asked)
        await end(world, url=receiver.url)
        deliverer.wake(await world.record())
        await receiver.got(timeout_secs=5.0)
        await deliverer.drain(5.0)
    assert metrics.webhooks.labels("delivered").value == 1
    assert not await world.store.command("EXISTS", world.prefix + "webhooks")


async def test_a_backlog_is_delivered_without_waiting_for_heartbeats(world: World) -> None:
    async with receiving() as receiver:
        for number in range(60):
            await end(world, f"r{number}", receiver.url)
        async with delivering(world, Metrics()):
            await receiver.got(60, timeout_secs=9.0)
    assert len({got.event_id for got in receiver.calls}) == len(receiver.calls) == 60


async def test_malformed_content_does_not_end_the_deliverer(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await end(world, "a")
    (event,) = await world.store.command("ZRANGE", world.prefix + "webhooks", 0, -1)
    await world.store.command("HSET", f"{world.prefix}webhook:{event.decode()}", "status", "nonsense")
    async with receiving() as receiver, delivering(world, Metrics()) as deliverer:
        await wait_until(lambda: "is malformed" in caplog.text)
        await end(world, "b", receiver.url)
        deliverer.wake(await world.record("b"))
        await receiver.got(timeout_secs=5.0)


async def test_a_dropped_event_is_counted_and_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await end(world)
    record = (await world.record())._replace(webhook="dropped")
    async with delivering(world, metrics := Metrics()) as deliverer:
        deliverer.wake(record)
        assert metrics.webhooks.labels("dropped").value == 1
        assert "the outbox of webhooks is full" in caplog.text


def test_a_frontend_without_webhooks_imports_no_http_client() -> None:
    code = "import sys, frontend.server; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("failures", "secs"), [(1, 5), (2, 15), (3, 45), (8, 10_935), (9, 14_400), (1000, 14_400)])
def test_pauses_grow_up_to_four_hours(failures: int, secs: float) -> None:
    assert pause_after(failures, 5.0) == secs


async def test_doctor_warns_of_events_that_nobody_delivers(world: World) -> None:
    async def finding() -> Finding:
        return next(finding for finding in await check_requests(world.store) if finding.check == "webhooks")

    assert (await finding()).level is Level.OK
    await end(world, url=URL)
    assert (await finding()).message == "1 waiting"
    world.shift_clock(61)
    assert (await finding()).level is Level.WARN

"""A newcomer with another lease time is refused, as it should be, and tries again and again, as a bad deployment does.

Then Redis loses its data. If the newcomer comes first, its settings become those of the cluster, and every replica that
was running ends itself over the conflict. Expected: whoever runs already goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lifecycle.errors import ConfigurationConflict
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.types import Role
from tests.known_faults.core.replicas import frontend, quick_settings
from tests.servers import ask, info
from tests.waiting import wait_until

_TRIES = 20  # until the newcomer is the first one after a loss
_SCRIPTS = 40  # a running frontend calls so many in some heartbeats


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as running:
        yield running


def _scripts(server: EmbeddedRedis) -> int:
    values = info(server, "commandstats").get("cmdstat_evalsha", "calls=0")
    return int(values.split(",")[0].removeprefix("calls="))


async def _run(settings: Settings, joined: asyncio.Event, leave: asyncio.Event) -> None:
    async with frontend(settings):
        joined.set()
        await leave.wait()


async def test_a_newcomer_with_another_lease_time_is_refused(server: EmbeddedRedis) -> None:
    async with (
        frontend(quick_settings(server.url)),
        open_store(quick_settings(server.url, lease_secs=3.0)) as newcomer,
    ):
        with pytest.raises(ConfigurationConflict):
            await newcomer.heartbeat("newcomer", Role.FRONTEND, {}, [])


async def test_a_newcomer_that_comes_first_after_a_loss_ends_nobody(server: EmbeddedRedis) -> None:
    joined, leave = asyncio.Event(), asyncio.Event()
    replica = asyncio.create_task(_run(quick_settings(server.url), joined, leave))
    async with open_store(quick_settings(server.url, lease_secs=3.0)) as newcomer:
        await joined.wait()
        for _ in range(_TRIES):
            ask(server, "FLUSHALL")
            with suppress(ConfigurationConflict):
                await newcomer.heartbeat("newcomer", Role.FRONTEND, {}, [])
                break
        before = _scripts(server)

        await wait_until(lambda: replica.done() or _scripts(server) >= before + _SCRIPTS)
        survived = not replica.done()
        leave.set()
        await asyncio.wait((replica,))

    assert survived, f"the frontend ended: {replica.exception()!r}"

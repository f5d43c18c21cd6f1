"""A mistake in Redis's access rules refuses XADD for a moment, until somebody corrects it.

A write that is refused for want of permission is tried again for as long as other refusals are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.known_faults.core.replicas import call, frontend, quick_settings, reading, served, worker
from tests.servers import ask
from tests.waiting import wait_until

_TOKENS = 100
_PAUSE_SECS = 0.02
_BEFORE = 10  # tokens until the mistake


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    for number in range(_TOKENS):
        yield f"{number} "
        await asyncio.sleep(_PAUSE_SECS)


async def test_a_stream_goes_on_after_a_command_was_forbidden_for_a_moment() -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, _engine):
            await served(tracker)
            flight = await tracker.admit(call("r1"))
            async with reading(flight.reader) as client:
                await client.got(_BEFORE)
                ask(server, "ACL", "SETUSER", "default", "-xadd")
                await wait_until(lambda: ask(server, "ACL", "LOG"), what="a refused write")
                ask(server, "ACL", "SETUSER", "default", "+xadd")

                end = await client.ended()

    assert (end.status, end.error_type) == ("completed", "")
    assert client.text == "".join(f"{number} " for number in range(_TOKENS))

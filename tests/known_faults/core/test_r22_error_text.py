"""An engine's error message may hold a lone surrogate: JSON that was cut in the middle of an emoji decodes to one.

Tokens are cleaned of them before they are encoded, messages are not, so the worker cannot report the end. Expected:
the request fails as `internal` at once, after one run of the engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.types import ErrorType
from tests.known_faults.core.replicas import call, frontend, quick_settings, reading, served, worker


async def test_an_error_message_with_a_lone_surrogate_ends_the_request_at_once() -> None:
    runs: list[int] = []

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        runs.append(context.attempt)
        yield "a"
        raise RuntimeError("upstream said: caf\ud83d")

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine):
            await served(tracker)
            flight = await tracker.admit(call("r1"))
            async with reading(flight.reader) as client:
                end = await client.ended()

            assert end.error_type == ErrorType.INTERNAL
            assert runs == [1]

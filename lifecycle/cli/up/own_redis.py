"""Run the private Redis of `up`, and start it again when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lifecycle.local.embedded_redis import open_server
from lifecycle.local.redis_process import ServerProcess

_POLL_SECS = 0.25


@contextmanager
def private_server(given_url: str | None, announce: Callable[[str], None]) -> Iterator[ServerProcess | None]:
    """Provide a private server, or None when a URL is given. Raises NoUsableServer when none can be started."""
    if given_url:
        yield None
        return
    with open_server(announce=announce) as server:
        yield server


async def keep_running(server: ServerProcess, warn: Callable[[str], None]) -> None:
    """Start the server again whenever it has died, until cancelled. Raises NoUsableServer when it does not start."""
    while True:
        await asyncio.sleep(_POLL_SECS)
        if not server.running:
            warn("Redis died unexpectedly, and all that it held is lost. It is started again.")
            await asyncio.to_thread(server.start)

"""Start a server from an older copy of its append-only file, as a machine does that is restored from a backup."""

from __future__ import annotations

import asyncio
import shutil

from lifecycle.local.embedded_redis import EmbeddedRedis

AOF = "appendonlydir"


async def roll_back(server: EmbeddedRedis, secs: float) -> None:
    """Return once it serves again what it had about `secs` ago."""
    aof, copy = server.directory / AOF, server.directory / "copy"
    await asyncio.to_thread(shutil.copytree, aof, copy)
    await asyncio.sleep(secs)
    await asyncio.to_thread(server.kill)
    shutil.rmtree(aof)
    copy.rename(aof)
    await asyncio.to_thread(server.start)

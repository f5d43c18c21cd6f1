"""On Redis 6.2 (ElastiCache 6, Debian 11, KeyDB) the start must say that 7.0 is needed and that 6.2 was found.

Today frontend, worker and `doctor` repeat the words of the server's Lua compiler. The server of this test is a newer
one behind a relay that makes it differ from a 6.2 in the two ways that count: it names version 6.2, and its compiler
refuses the first line of a script (`#!lua …`), which a real 6.2.5 does in the same words.
Source: maccman/juggernaut#56, hagsteel/swampdragon#129 ("unknown command" for "your Redis is too old").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_process import free_port
from tests.known_faults.reports.kit import Site, ended

SHEBANG, REFUSED = b"#!lua", b"#?lua"
VERSION, OLD_VERSION = re.compile(rb"redis_version:\d+\.\d+"), b"redis_version:6.2"


class Relay:
    """Pass bytes between clients and a server, with the two changes."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        await asyncio.gather(_relay_scripts(reader, server_writer), _relay_replies(server_reader, writer))


async def _relay_scripts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kept = b""
    while data := await reader.read(65_536):
        data = kept + data
        cut = next((n for n in range(len(SHEBANG) - 1, 0, -1) if data.endswith(SHEBANG[:n])), 0)
        data, kept = data[: len(data) - cut], data[len(data) - cut :]  # the mark may come in two pieces
        writer.write(data.replace(SHEBANG, REFUSED))
    writer.close()


async def _relay_replies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(VERSION.sub(OLD_VERSION, data))
    writer.close()


@pytest.fixture
async def old_redis_url() -> AsyncIterator[str]:
    with EmbeddedRedis(port=0) as redis:
        relay = Relay(redis.port)
        server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        finally:
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize("command", ["frontend", "worker", "doctor"])
async def test_the_version_that_is_needed_is_named(site: Site, old_redis_url: str, command: str) -> None:
    argv = {
        "frontend": ["frontend", "--port", str(free_port())],
        "worker": ["worker", "--model", "old", "--engine", "echo"],
        "doctor": ["doctor"],
    }[command]
    process = await site.launch(*argv, env={"LIFECYCLE_REDIS_URL": old_redis_url})
    code, said = await ended(process), process.log.read_text()
    assert code == 1, said
    assert "7.0" in said, said
    assert "6.2" in said, said
    assert "script" not in said.lower(), said

"""Finding the primary although not every Sentinel answers, and what Sentinels take for a failure."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from redis.exceptions import RedisError, ResponseError

from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.link import connected
from lifecycle.store.redis import make_client
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask
from tests.waiting import wait_until

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_TRIES = 100  # most resets come after the answer was read and before the next command is written


async def test_a_sentinel_that_hangs_leaves_time_for_the_next() -> None:
    with SentinelSetup() as setup:
        first = setup.sentinels[0]
        first.freeze()
        try:
            settings = Settings(redis_url=setup.url, namespace="sentinels", redis_timeout_secs=2.0)
            async with open_store(settings) as store:
                await store.ping()
        finally:
            first.thaw()


async def test_a_primary_that_cannot_save_its_snapshots_is_replaced() -> None:
    """Redis answers PING with MISCONF then, which a Sentinel does not take for an answer."""
    with SentinelSetup(config={"save": "3600 1"}) as setup:
        failing = setup.primary
        (failing.directory / "dump.rdb").unlink(missing_ok=True)
        (failing.directory / "dump.rdb").mkdir()
        ask(failing, "SET", "key", "value")
        ask(failing, "BGSAVE")
        with pytest.raises(ResponseError, match="MISCONF"):
            await wait_until(lambda: ask(failing, "PING") != "PONG", what="a failed snapshot")
        await setup.agreed()
        assert setup.replica is failing


@contextmanager
def _resets_after_the_first_answer() -> Iterator[int]:
    """Listen on a port that answers what opens a connection, and resets it up to 0.4 ms later."""

    def serve() -> None:
        for number in itertools.count():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(b"+OK\r\n+OK\r\n")
                until = time.perf_counter() + number % 40 * 1e-5
                while time.perf_counter() < until:
                    pass
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_reset_by_a_sentinel_is_a_failed_connection() -> None:
    """Under uvloop, whose transports raise RuntimeError after a reset."""
    uvloop = pytest.importorskip("uvloop")

    async def connect(port: int) -> None:
        client = make_client(f"redis+sentinel://127.0.0.1:{port}/main", socket_timeout_secs=2.0)
        for _ in range(_TRIES):
            with pytest.raises((RedisError, OSError)):
                await connected(client)
        await client.aclose()

    with _resets_after_the_first_answer() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(connect(port))

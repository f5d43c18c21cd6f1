"""Measure how much of Redis's work for a request is in the commands of its scripts, and how much in the scripts.

The commands that scripts have run, as MONITOR shows them, are sent to the server once more, in one pipeline for each
script. What the scripts cost beyond that is Lua: its values, strings and JSON, and the calls of the commands. Nothing
but a script makes the commands of a request one transition, so the pipelines are no alternative.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import hiredis

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.ids import new_request_id
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.arguments import pack
from lifecycle.store.connect import open_store
from lifecycle.store.results import Append, Outcome, Run
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join
from tests.servers import ask
from tests.waiting import wait_until

_TOGETHER = 12  # requests: about as many as a merged call of `short-32` has
_SHOWN = re.compile(rb"^\+[\d.]+ \[\d+ ([^\]]*)\] (.*)$")  # a line of MONITOR: who sent the command, and its words
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_TOKENS = b'["token"]'
_LAST = "the last command"
_RECEIVED_BYTES = 1 << 20
_TIMEOUT_SECS = 30.0

Command = tuple[bytes, ...]


async def measure(quick: bool) -> list[Table]:
    """Admit, take and end requests of one token, `_TOGETHER` at a time and one at a time; then send their commands."""
    rounds = 5 if quick else 300
    table = Table(
        "Redis's work for a request of one token",
        ("requests in a call", "commands", "in scripts, CPU-µs", "alone, CPU-µs"),
        note="CPU time of the server's process. The commands alone are sent in one pipeline for each script.",
    )
    for together in (_TOGETHER, 1):
        with bench.server() as redis:
            ask(redis, "CONFIG", "SET", "slowlog-log-slower-than", "-1")
            async with open_store(bench.settings_for(redis.url)) as store:
                await join(store, bench.FRONTEND, Role.FRONTEND, {}, [])
                await join(store, bench.WORKER, Role.WORKER, {}, [bench.MODEL])
                await _serve(store, together, rounds)
                in_scripts = await bench.cpu_us(redis, partial(_serve, store, together, rounds))
                shown = asyncio.create_task(asyncio.to_thread(_watch, redis))
                await _wait_for_monitor(redis)
                await _serve(store, together, rounds)
                ask(redis, "ECHO", _LAST)
                pipelines = await shown
            ask(redis, "FLUSHALL")
            alone = await bench.cpu_us(redis, partial(asyncio.to_thread, _send, redis, pipelines))
        requests = together * rounds
        table.add(str(together), sum(map(len, pipelines)) / requests, in_scripts / requests, alone / requests)
    return [table]


async def _serve(store: Store, together: int, rounds: int) -> None:
    """Admit so many requests at once, take them, and end them with their only token; `rounds` times."""
    for _ in range(rounds):
        await asyncio.gather(*(bench.admit(store, new_request_id("r-")) for _ in range(together)))
        runs = await bench.start_queued(store, together)
        await asyncio.gather(*(_finish(store, run) for run in runs))


async def _finish(store: Store, run: Run) -> None:
    start, last = run.start, Append(run.rid, run.start.attempt, 1, _TOKENS, True)
    outcome = Outcome("completed", finish_reason="stop", content_events=1, produced_events=1)
    ended = await store.finish(run.rid, bench.WORKER, start.attempt, outcome, 1, remainder=last, nonce=start.nonce)
    if ended.what != "done":
        raise RuntimeError(f"request {run.rid} could not be completed: {ended.what}")


def _watch(redis: EmbeddedRedis) -> list[list[Command]]:
    """Return the commands of each script that runs until somebody sends the last ECHO, as MONITOR shows them."""
    pipelines: list[list[Command]] = [[]]
    with _connected(redis) as connection, connection.makefile("rb") as lines:
        connection.sendall(pack(("MONITOR",)))
        for line in lines:
            shown = _SHOWN.match(line.rstrip(b"\r\n"))
            if shown is None:  # the answer to MONITOR
                continue
            words = tuple(word.decode("unicode_escape").encode("latin-1") for word in _WORD.findall(shown[2]))
            if words[-1] == _LAST.encode():
                break
            if shown[1] == b"lua":
                pipelines[-1].append(words)
            elif pipelines[-1]:  # the next script
                pipelines.append([])
    return [pipeline for pipeline in pipelines if pipeline]


async def _wait_for_monitor(redis: EmbeddedRedis) -> None:
    await wait_until(lambda: "flags=O" in ask(redis, "CLIENT", "LIST"), what="the monitor is connected")


def _send(redis: EmbeddedRedis, pipelines: Sequence[Sequence[Command]]) -> None:
    """Send each pipeline, and read its replies before the next one."""
    reader = hiredis.Reader()
    with _connected(redis) as connection:
        for pipeline in pipelines:
            connection.sendall(b"".join(map(pack, pipeline)))
            for _ in pipeline:
                while reader.gets() is False:
                    reader.feed(connection.recv(_RECEIVED_BYTES))


def _connected(redis: EmbeddedRedis) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_SECS)
    connection.connect(urlsplit(redis.unix_url).path)
    return connection

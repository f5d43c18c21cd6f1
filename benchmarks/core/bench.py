"""A Redis server to measure with, its own account of its work, and requests written into it as replicas write them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.account import cpu_ns
from lifecycle.ids import new_nonce, new_start_nonce
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings, load
from lifecycle.store.queues import TAKE_LIMIT
from lifecycle.store.results import Append, Outcome, Run
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, Labels, OnDisconnect, RequestType
from tests.admitting import new_request
from tests.servers import ask, info

MODEL = "m"
FRONTEND = "frontend-1"
WORKER = "worker-1"
LABELS = Labels(MODEL, Endpoint.CHAT_COMPLETIONS, RequestType.STREAM)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
_TOGETHER = 500  # calls that are under way at the same time
_SLOWLOG_LENGTH = 20_000
_SERVER_CONFIG = {
    "slowlog-log-slower-than": "0",
    "slowlog-max-len": str(_SLOWLOG_LENGTH),
    "repl-diskless-sync-delay": "0",  # a replica follows at once
}
_LEASE_SECS = 86_400.0  # no replica expires while something is measured
_OWN_COMMANDS = ("client", "cluster", "config", "info", "slowlog", "command", "hello", "debug")


@contextmanager
def server() -> Iterator[EmbeddedRedis]:
    """Run a Redis server on loopback TCP that logs the duration of every command."""
    with EmbeddedRedis(port=0, config=_SERVER_CONFIG) as running:
        yield running


def settings_for(url: str, **overrides: Any) -> Settings:
    """Return settings under which no lease ends and no queue is full, unless overridden."""
    common = {"redis_url": url, "lease_secs": _LEASE_SECS, "queue_limit": 1_000_000, "log_level": "error"}
    return load({**common, **overrides})


@dataclass(frozen=True, slots=True)
class ScriptTimes:
    """Return the time that scripts ran inside Redis, in milliseconds."""

    durations_ms: Sequence[float]

    @property
    def worst_ms(self) -> float:
        return max(self.durations_ms, default=0.0)

    @property
    def sum_ms(self) -> float:
        return sum(self.durations_ms)

    @property
    def mean_us(self) -> float:
        return self.sum_ms * 1000 / max(1, len(self.durations_ms))


def forget_script_times(redis: EmbeddedRedis) -> None:
    """Empty Redis's log of durations."""
    ask(redis, "SLOWLOG", "RESET")


def script_times(redis: EmbeddedRedis) -> ScriptTimes:
    """Return the durations of all scripts since the log was emptied; at most the last 20,000 commands count."""
    entries = ask(redis, "SLOWLOG", "GET", _SLOWLOG_LENGTH)
    return ScriptTimes([int(entry[2]) / 1000 for entry in entries if entry[3][0].upper() in ("EVALSHA", "EVAL")])


def calls_of(redis: EmbeddedRedis) -> dict[str, int]:
    """Return the calls of each command so far, those inside scripts included, without those of the measurement."""
    found: dict[str, int] = {}
    for name, values in info(redis, "commandstats").items():
        command = name.removeprefix("cmdstat_")
        if command.split("|")[0] not in _OWN_COMMANDS:
            found[command] = int(dict(pair.split("=") for pair in values.split(","))["calls"])
    return found


def reset_counters(redis: EmbeddedRedis) -> None:
    """Set Redis's counts of calls and bytes back to zero."""
    ask(redis, "CONFIG", "RESETSTAT")


_numbers = itertools.count(1)  # of takes, in all stores


async def admit(
    store: Store, rid: str, *, frontend: str = FRONTEND, body: bytes = BODY, deadline_secs: float = 0.0
) -> None:
    """Queue one request under a frontend. Raises RuntimeError when it is refused."""
    new = new_request(rid, new_nonce(), LABELS, frontend, body, OnDisconnect.CANCEL.value, deadline_secs=deadline_secs)
    admission = await store.admit(new)
    if admission.outcome != "admitted":
        raise RuntimeError(f"request {rid} was not admitted: {admission.outcome}")


async def admit_all(store: Store, rids: Sequence[str], *, frontend: str = FRONTEND, deadline_secs: float = 0.0) -> None:
    """Queue many requests, some hundreds at a time."""
    for start in range(0, len(rids), _TOGETHER):
        some = rids[start : start + _TOGETHER]
        await asyncio.gather(*(admit(store, rid, frontend=frontend, deadline_secs=deadline_secs) for rid in some))


async def start_queued(store: Store, count: int, shard: int = 0) -> list[Run]:
    """Let WORKER take `count` requests from the queue of one shard, and return their runs."""
    runs: list[Run] = []
    while len(runs) < count:
        slots = min(TAKE_LIMIT, count - len(runs))
        taken = await store.take(shard, WORKER, next(_numbers), new_start_nonce(), [MODEL], slots)
        if taken is None or not taken.runs:
            raise RuntimeError(f"the queue holds {len(runs)} requests, {count} were to be started")
        runs += taken.runs
    return runs


def tokens(rid: str, last: int, texts: Sequence[str], *, attempt: int = 1) -> Append:
    """Return an append of these texts, of which the last has the number `last`."""
    return Append(rid, attempt, last, orjson.dumps(list(texts)), last == len(texts))


async def stream(store: Store, rid: str, count: int, *, per_entry: int = 1) -> None:
    """Append `count` tokens to a running request, `per_entry` of them in each entry."""
    ends = itertools.chain(range(per_entry, count + 1, per_entry), [count] if count % per_entry else [])
    previous = 0
    calls = []
    for end in ends:
        texts = [" token"] * (end - previous)
        calls.append(tokens(rid, end, texts))
        previous = end
    for begin in range(0, len(calls), _TOGETHER):
        shard = store.keys.shard_of(rid)
        await asyncio.gather(*(store.append(shard, WORKER, [call]) for call in calls[begin : begin + _TOGETHER]))


async def complete(store: Store, rid: str, last: int) -> None:
    """End a request as completed behind its token number `last`. Raises RuntimeError when Redis refuses."""
    ended = await store.finish(rid, WORKER, 1, Outcome("completed", finish_reason="stop"), last)
    if ended.what != "done":
        raise RuntimeError(f"request {rid} could not be completed: {ended.what}")


async def cpu_us(redis: EmbeddedRedis, work: Callable[[], Awaitable[object]]) -> float:
    """Do some work, and return the CPU time that the server's process took meanwhile, in microseconds."""
    pid = int(info(redis, "server")["process_id"])
    before = cpu_ns(pid)
    await work()
    return (cpu_ns(pid) - before) / 1000

"""The mark below a server's `maxmemory` at which admissions stop."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from lifecycle.errors import StoreFull, StoreUnavailable
from lifecycle.settings import Settings
from lifecycle.store.redis_errors import unavailable
from lifecycle.store.server_info import memory_room
from lifecycle.store.transitions import Store
from lifecycle.tracking.memory_mark import MemoryMark


class Server:
    """Answers INFO in a server's place."""

    def __init__(self, **memory: int) -> None:
        self.memory = memory
        self.refusal: Exception | None = None
        self.asked = 0

    async def node_of(self, key: str) -> Server:
        return self

    async def execute(self, *args: Any) -> bytes:
        assert args == ("INFO", "memory")
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return "\r\n".join(["# Memory", *(f"{name}:{value}" for name, value in self.memory.items())]).encode()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("lifecycle.tracking.memory_mark.time.monotonic", lambda: now[0])
    return now


def mark_of(server: Server) -> MemoryMark:
    commands: Any = server
    return MemoryMark(Store(commands, Settings()))


async def test_bodies_are_admitted_up_to_nine_tenths(clock: list[float]) -> None:
    server = Server(maxmemory=1000, used_memory=600, mem_not_counted_for_evict=100)
    mark = mark_of(server)
    await mark.check("r0", 300)
    with pytest.raises(StoreFull, match="90% of maxmemory"):
        await mark.check("r1", 101)
    await mark.check("r2", 100)
    assert server.asked == 1, "what was admitted since the answer is counted here"
    server.memory["used_memory"] = 300
    clock[0] += 0.2
    await mark.check("r3", 400)
    assert server.asked == 2, "near the mark it is asked again soon"


async def test_far_from_the_mark_a_server_is_asked_once_a_second(clock: list[float]) -> None:
    server = Server(maxmemory=1_000_000, used_memory=600)
    mark = mark_of(server)
    for number in range(100):
        clock[0] += 0.05
        await mark.check(f"r{number}", 10)
    assert server.asked == 5


@pytest.mark.parametrize("memory", [{"maxmemory": 0, "used_memory": 10**9}, {}])
async def test_without_a_limit_there_is_no_mark(clock: list[float], memory: dict[str, int]) -> None:
    await mark_of(Server(**memory)).check("r", 10**12)
    assert memory_room({name: str(value) for name, value in memory.items()}) == float("inf")


async def test_a_server_that_does_not_tell_has_no_mark(clock: list[float]) -> None:
    server = Server()
    server.refusal = StoreUnavailable("Redis refuses commands for now (NOPERM)")
    mark = mark_of(server)
    for _ in range(10):
        await mark.check("r", 10**12)
    assert server.asked == 1


def test_the_refusal_of_redis_itself_is_told_alike() -> None:
    refusal = unavailable(OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    assert isinstance(refusal, StoreFull)
    assert not isinstance(unavailable(ResponseError("BUSY")), StoreFull)
    assert issubclass(StoreFull, StoreUnavailable)

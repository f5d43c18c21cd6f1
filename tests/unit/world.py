"""A small cluster for tests of the scripts: two frontends, two workers, and one method for each of their actions."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Self

import orjson

from lifecycle.settings import Settings
from lifecycle.store.common_settings import CommonSettings
from lifecycle.store.results import (
    Admission,
    Append,
    Ended,
    ExpiredReplica,
    Offer,
    Outcome,
    Run,
    Start,
    Taken,
    queued_and_running,
)
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, RequestRecord, Role
from tests.admitting import CHAT, admit
from tests.joining import join
from tests.pushes import Pushes

MODEL = CHAT.model
LABELS = CHAT
LEASE_SECS = 30.0


def unchecked(base: int = 0) -> Start:
    """Return a first start, behind `base` tokens, that Redis does not compare with the one that it knows."""
    return Start(1, base, body=b"{}", cancel_mode="", traceparent="", created_at=0.0)


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.shard = 0
        self.prefix = store.keys.prefixes[0]
        self._pushes: dict[str, Pushes] = {}
        self._pushed: defaultdict[str, list[tuple[str, str, Any]]] = defaultdict(list)
        self._takes: Counter[str] = Counter()

    @classmethod
    async def without_workers(cls, store: Store) -> Self:
        """Open a world that has frontends only."""
        world = cls(store)
        await world.open()
        for name in ("w0", "w1"):
            await store.leave(name, Role.WORKER)
        return world

    async def open(self) -> None:
        for frontend in ("f0", "f1"):
            self._pushes[frontend] = await Pushes.open(self.store, frontend)
        await self.heartbeat()

    async def share(self, settings: Settings) -> None:
        """Let all replicas run with these common settings from now on."""
        self.store.settings, self.store.common = settings, CommonSettings()
        await self.store.command("DEL", self.store.keys.control + "config")
        await join(self.store, "f0", Role.FRONTEND, {}, [])

    async def heartbeat(self, *silent: str) -> None:
        """All but the `silent` renew their leases."""
        for name, role in {"f0": Role.FRONTEND, "f1": Role.FRONTEND, "w0": Role.WORKER, "w1": Role.WORKER}.items():
            if name not in silent:
                await join(self.store, name, role, models=[MODEL] if role == Role.WORKER else [])

    async def admit(self, rid: str = "r", **admission: Any) -> Admission:
        """`admission` are the keyword arguments of `tests.admitting.admit`."""
        return await admit(self.store, rid, **admission)

    async def take_all(self, worker: str = "w0", slots: int = 1, *, gives_up: int | None = None, **offer: Any) -> Taken:
        """Take with the next number. `offer` are the arguments of Offer."""
        self._takes[worker] += 1
        return await self.take_again(worker, slots, gives_up=gives_up, **offer)

    async def take_again(
        self, worker: str = "w0", slots: int = 1, *, gives_up: int | None = None, **offer: Any
    ) -> Taken:
        """Repeat the last take of the worker, as after a lost reply."""
        number = self._takes[worker]
        nonce = f"{worker:-<4}{number:04}"
        taken = await self.store.take(
            self.shard, worker, number, nonce, [MODEL], slots, Offer(**offer), gives_up=gives_up
        )
        assert taken is not None, "a later take has been executed"
        return taken

    async def take(self, worker: str = "w0", **offer: Any) -> Run:
        """Take one request, which must be queued."""
        taken = await self.take_all(worker, **offer)
        assert taken.runs, "nothing can be taken"
        return taken.runs[0]

    async def run(self, rid: str = "r", worker: str = "w0", *, resumable: bool = False, **admission: Any) -> Run:
        """Admit a request and start it."""
        await self.admit(rid, **admission)
        return await self.take(worker, resumable=resumable)

    async def forget_start(self, rid: str = "r", worker: str = "w0") -> None:
        """Remove a start from Redis, as after the promotion of a Redis replica that has not received it."""
        store, prefix = self.store, self.prefix
        await store.command("DEL", f"{prefix}tokens:{rid}", f"{prefix}running:{worker}")
        await store.command("HSET", f"{prefix}request:{rid}", "status", "queued", "worker", "", "attempt", "0")
        await store.command("HDEL", f"{prefix}request:{rid}", "first_token_at", "cost")
        for key, score, member in (
            (f"flow:0|0||{MODEL}", 1, rid),
            (f"level:0|{MODEL}", 0, ""),
            (f"levels:{MODEL}", 0, "0"),
        ):
            await store.command("ZADD", prefix + key, score, member)
        await store.command("HSET", f"{prefix}queued:{MODEL}", "", 1)
        await store.command("HSET", f"{prefix}queued_bytes", MODEL, 2)
        (labels, _) = await store.command("HGETALL", f"{prefix}counts:f0")
        for key in (f"{prefix}counts:f0", f"{prefix}group_counts"):
            await store.command("HSET", key, labels, 1)  # one that is queued

    async def append(self, number: int, *, rid: str = "r", worker: str = "w0", attempt: int = 1) -> str:
        """One token; 'accepted' or why not."""
        token = orjson.dumps([f"{attempt}.{number} "])
        refused = await self.store.append(0, worker, [Append(rid, attempt, number, token, number == 1)])
        return refused[0][1] if refused else "accepted"

    async def finish(
        self, last: int = 0, *, rid: str = "r", worker: str = "w0", attempt: int = 1, outcome: Outcome | None = None
    ) -> Ended:
        outcome = outcome or Outcome("completed", finish_reason="stop")
        return await self.store.finish(rid, worker, attempt, outcome, last)

    async def cancel(self, mode: str = "kill", rid: str = "r") -> str:
        answer = await self.store.cancel(rid, CancelMode(mode), f"{mode} was asked for")
        return answer.what if answer else "unknown"

    async def expire(self, name: str) -> ExpiredReplica:
        """Expire a replica at once, as when it leaves."""
        await self.store.leave(name, Role.FRONTEND if name.startswith("f") else Role.WORKER)
        pending_cleanup = {expired.replica: expired for expired in await self.store.expire(0, name)}
        return pending_cleanup[name]

    async def reap(self, name: str) -> tuple[int, int, int]:
        """Expire and reap a replica. Return how many of its requests ended, moved and wait."""
        answer = await self.store.reap(0, await self.expire(name))
        return answer.ended, answer.moved, answer.waiting

    async def record(self, rid: str = "r") -> RequestRecord:
        record = await self.store.read(rid)
        assert record is not None
        return record

    async def tokens(self, rid: str = "r") -> str:
        """Return the text that a reader of the whole stream gets."""
        text = ""
        for _, flat in await self.store.command("XRANGE", f"{self.prefix}tokens:{rid}", "-", "+"):
            values = dict(zip(flat[::2], flat[1::2], strict=True))
            text += "".join(orjson.loads(values.get(b"t", b"[]")))
        return text

    async def pushed(self, frontend: str) -> list[str]:
        """Ids of the token entries that the frontend was pushed."""
        items = self._pushed[frontend]
        items += await self._pushes[frontend].take()
        return [entry_id for _, entry_id, payload in items if isinstance(payload, list)]

    async def close(self) -> None:
        for pushes in self._pushes.values():
            await pushes.close()

    async def counts(self, frontend: str) -> dict[str, int]:
        """Return the number of requests of a frontend, by status."""
        flat = await self.store.command("HGETALL", f"{self.prefix}counts:{frontend}")
        queued, running = map(sum, zip((0, 0), *(queued_and_running(int(n)) for n in flat[1::2]), strict=True))
        return {status: n for status, n in (("queued", queued), ("running", running)) if n}

    async def totals(self) -> dict[tuple[str, str], int]:
        """(status, error type) → how many; a request counts once, whatever was done to it."""
        flat = await self.store.command("HGETALL", f"{self.prefix}totals")
        totals: dict[tuple[str, str], int] = {}
        for field, number in zip(flat[::2], flat[1::2], strict=True):
            name = orjson.loads(field)
            if name[0] != "reaped":
                totals[name[3], name[4]] = int(number)
        return totals

    def shift_clock(self, secs: float) -> None:
        self.store.clock_shift_secs += secs

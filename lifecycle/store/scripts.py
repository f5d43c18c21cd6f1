"""The Store: every transition of a request as a typed method. Each is one Lua script in one slot.

Every method may be repeated: a call whose reply was lost is sent again, within `retry_for_secs`, and changes nothing
the second time. Raises StoreUnavailable when Redis is away for longer than that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal, cast

import orjson
from redis.exceptions import NoScriptError

from lifecycle.errors import ConfigurationConflict, Fenced, StoreUnavailable
from lifecycle.settings import Settings
from lifecycle.store import script_loader
from lifecycle.store.keys import Keys
from lifecycle.store.redis import Commands
from lifecycle.store.results import (
    Admission,
    Append,
    Cancellation,
    Disconnection,
    Drop,
    Ended,
    ExpiredReplica,
    Outcome,
    Page,
    PendingCancellation,
    Reaped,
    Reconciliation,
    Refusal,
    Roster,
    RosterEntry,
    Row,
    Rows,
    Start,
    record_of,
)
from lifecycle.types import CancelMode, Labels, RequestRecord, Role

_FIRST_PAUSE_SECS = 0.02
_LONGEST_PAUSE_SECS = 0.5
_BATCH = 200  # requests a reap or a sweep handles in one call: bounds how long Redis is busy
_MESSAGE_CHARS = 4096
SCHEMA_VERSION = "3"


class Store:
    """Typed transitions over Redis. `clock_shift_secs` and `plain_lua` are for tests."""

    def __init__(
        self,
        commands: Commands,
        settings: Settings,
        *,
        clock_shift_secs: float = 0.0,
        plain_lua: bool = False,
    ) -> None:
        self.commands = commands
        self.settings = settings
        self.keys = Keys(settings.namespace, settings.shards)
        self.clock_shift_secs = clock_shift_secs
        self._prefixes = self.keys.prefixes
        self._scripts = {
            name: script_loader.load(name).without_shebang() if plain_lua else script_loader.load(name)
            for name in script_loader.names()
        }

    async def admit(
        self,
        rid: str,
        nonce: str,
        labels: Labels,
        frontend: str,
        body: bytes,
        *,
        on_disconnect: str,
        grace_secs: float,
        queue_timeout_secs: float,
        first_token_timeout_secs: float,
        deadline_secs: float,
        traceparent: str = "",
        idempotency: str = "",
        owner: str = "",
        admit_by: float | None = None,
        retry_for_secs: float = 0.3,
    ) -> Admission:
        reply = await self._in_shard(
            "admit", rid, retry_for_secs, rid, nonce, *labels, frontend, body, on_disconnect, grace_secs,
            queue_timeout_secs, first_token_timeout_secs, deadline_secs, self.settings.queue_limit, traceparent,
            idempotency, owner, "" if admit_by is None else f"{admit_by:.6f}",
        )  # fmt: skip
        outcome = cast(Literal["admitted", "exists", "full", "late", "fenced"], _text(reply[0]))
        if outcome == "admitted":
            return Admission(outcome, created_at=float(reply[1]))
        return Admission(outcome, depth=int(reply[1]) if outcome == "full" else 0)

    async def start(
        self, rid: str, worker: str, queue: str, model: str, entry: str, *, resumable: bool = False,
        retry_for_secs: float = 0.0,
    ) -> Start | Drop:  # fmt: skip
        reply = await self._in_shard(
            "start", rid, retry_for_secs, rid, worker, queue, model, entry, int(resumable), self.settings.retention_secs
        )
        if _text(reply[0]) == "fenced":
            raise Fenced("This worker's lease has expired")
        if _text(reply[0]) == "drop":
            return Drop(_text(reply[1]))
        return Start(
            int(reply[1]), int(reply[2]), reply[3], _text(reply[4]), _text(reply[5]), _text(reply[6]),
            _text(reply[7]), float(reply[8]),
        )  # fmt: skip

    async def append(self, shard: int, worker: str, batch: Sequence[Append]) -> list[tuple[Append, Refusal]]:
        """One flush. Not retried here: the writer does, because tokens gather meanwhile. Raises Fenced."""
        args: list[Any] = [worker]
        for a in batch:
            args += (a.rid, f"{a.attempt}-{a.number}", a.tokens, "1" if a.first else "0")
        reply = await self._call("append", self._prefixes[shard], *args)
        if reply and reply[0] == b"fenced":
            raise Fenced("This worker's lease has expired")
        return [(batch[int(index)], cast(Refusal, _text(why))) for index, why in reply]

    async def finish(
        self,
        rid: str,
        worker: str,
        attempt: int,
        outcome: Outcome,
        last: int,
        *,
        remainder: Append | None = None,
        input_tokens: int | None = None,
        retry_for_secs: float = 0.0,
    ) -> Ended:
        reply = await self._in_shard(
            "finish", rid, retry_for_secs, rid, worker, attempt, outcome.status, outcome.error_type,
            outcome.message[:_MESSAGE_CHARS], outcome.finish_reason, last,
            f"{attempt}-{remainder.number}" if remainder else "", remainder.tokens if remainder else "",
            "" if input_tokens is None else input_tokens, self.settings.retention_secs,
        )  # fmt: skip
        return _ended(reply)

    async def fail(
        self, rid: str, error_type: str, message: str, *, seen: int | None = None, retry_for_secs: float = 0.0
    ) -> Ended:
        """End a request from its frontend; with `seen`, only if no token came after that number."""
        reply = await self._in_shard(
            "fail", rid, retry_for_secs, rid, error_type, message[:_MESSAGE_CHARS], "" if seen is None else seen,
            self.settings.retention_secs,
        )  # fmt: skip
        return _ended(reply)

    async def cancel(
        self, rid: str, mode: CancelMode, reason: str, *, retry_for_secs: float = 0.0
    ) -> Cancellation | None:
        """None when unknown."""
        reply = await self._in_shard(
            "cancel",
            rid,
            retry_for_secs,
            rid,
            mode.value,
            reason[:_MESSAGE_CHARS],
            self.settings.retention_secs,
        )
        record = record_of(reply[1]) if len(reply) > 1 else None
        return Cancellation(cast(Any, _text(reply[0])), record) if record else None

    async def attach(
        self, rid: str, frontend: str, readers: int, *, retry_for_secs: float = 0.0
    ) -> RequestRecord | None:
        """Subscribe this frontend's inbox to a request. None when unknown. Raises Fenced."""
        reply = await self._in_shard("attach", rid, retry_for_secs, rid, frontend, readers)
        if reply == [b"fenced"]:
            raise Fenced("This frontend's lease has expired")
        return record_of(reply)

    async def disconnect(
        self,
        rid: str,
        frontend: str,
        readers: int,
        connection: str,
        *,
        admitting: bool,
        retry_for_secs: float = 0.0,
    ) -> Disconnection:
        reply = await self._in_shard(
            "disconnect", rid, retry_for_secs, rid, frontend, readers, connection, int(admitting),
            self.settings.retention_secs,
        )  # fmt: skip
        return Disconnection(_text(reply[0]), bool(reply[1]), float(reply[2]))

    async def requeue(
        self, rid: str, worker: str, *, attempt: int | None = None, queue: str = "", entry: str = "",
        retry_for_secs: float = 0.0,
    ) -> str:  # fmt: skip
        """Give back a running attempt, or (by queue and entry) a delivery not started.

        Returns `requeued`, `ended`, `not` or `unknown`.
        """
        reply = await self._in_shard(
            "requeue", rid, retry_for_secs, rid, worker, "" if attempt is None else attempt, queue, entry,
            self.settings.max_attempts, self.settings.retention_secs,
        )  # fmt: skip
        return _text(reply[0])

    async def reconcile_shard(
        self, shard: int, replica: str, role: Role, believed: int, rids: Sequence[str] | None = None
    ) -> Reconciliation:
        """A heartbeat in one shard. Raises Fenced."""
        listed = "" if rids is None else orjson.dumps(list(rids))
        reply = await self._call("reconcile_shard", self._prefixes[shard], replica, role.value, believed, listed, 1000)
        if reply[0] == b"fenced":
            raise Fenced("This replica's lease has expired")
        orders = [PendingCancellation(_text(r), _text(m), _text(why)) for r, m, why in reply[3]]
        return Reconciliation(
            _text(reply[1]), int(reply[2]), orders, [_text(r) for r in reply[4]], [_text(r) for r in reply[5]]
        )

    async def reap(self, shard: int, grave: ExpiredReplica, new_owners: Sequence[str]) -> Reaped:
        reply = await self._call(
            "reap", self._prefixes[shard], grave.replica, grave.role, orjson.dumps(list(new_owners)),
            orjson.dumps(grave.models), self.settings.retention_secs, self.settings.max_attempts, _BATCH,
        )  # fmt: skip
        return Reaped(bool(reply[0]), int(reply[1]), int(reply[2]), int(reply[3]))

    async def sweep(self, shard: int, unserved: Sequence[str] = (), models: Sequence[str] = ()) -> tuple[int, bool]:
        """Draw the consequences of what is due; returns how many ended and whether there is more to do.

        `models`: in whose queues to look for deliveries to the dead.
        """
        reply = await self._call(
            "sweep", self._prefixes[shard], orjson.dumps(list(unserved)), orjson.dumps(list(models)),
            self.settings.retention_secs, _BATCH,
        )  # fmt: skip
        return int(reply[0]), bool(reply[1])

    async def read(self, rid: str, *, retry_for_secs: float = 0.0) -> RequestRecord | None:
        return record_of(await self._in_shard("read", rid, retry_for_secs, rid))

    async def list_page(
        self,
        shard: int,
        *,
        active: bool,
        upper: str,
        before: str,
        status: str,
        model: str,
        endpoint: str,
        frontend: str,
        worker: str,
        owner: str,
        limit: int,
    ) -> Page:
        reply = await self._call(
            "list", self._prefixes[shard], "active" if active else "created", upper, before, status, model,
            endpoint, frontend, worker, owner, limit, max(1000, limit),
        )  # fmt: skip
        records = [r for r in map(record_of, reply[3:]) if r is not None]
        return Page(records, bool(reply[0]), _text(reply[1]), _text(reply[2]))

    async def browse(
        self, shard: int, index: str, order: str, offset: int, scan_limit: int, limit: int, status: str,
        words: Sequence[str],
    ) -> Rows:  # fmt: skip
        """`index` is `active` (by created_at) or `expiries` (by finished_at); `words` are in lower case."""
        reply = await self._call(
            "browse", self._prefixes[shard], index, order, offset, scan_limit, limit, status, orjson.dumps(list(words))
        )
        rows = [(record_of(text), int(readers)) for text, readers in reply[2:]]
        return Rows(
            float(reply[0]), int(reply[1]), [Row(record, readers) for record, readers in rows if record is not None]
        )

    async def heartbeat(
        self,
        replica: str,
        role: Role,
        about: dict[str, Any],
        models: Sequence[str],
        *,
        retry_for_secs: float = 0.0,
    ) -> float:
        """Join or renew the lease; returns Redis's time. Raises Fenced or ConfigurationConflict."""
        s = self.settings
        common = {"shards": str(s.shards), "lease_secs": f"{s.lease_secs:g}", "version": SCHEMA_VERSION}
        reply = await self.run(
            "heartbeat", self.keys.control, replica, role.value, s.lease_secs, orjson.dumps(about),
            orjson.dumps(list(models)), orjson.dumps(common), retry_for_secs=retry_for_secs,
        )  # fmt: skip
        what = _text(reply[0])
        if what == "fenced":
            raise Fenced("This replica's lease has expired")
        if what == "conflict":
            name, theirs = _text(reply[1]), _text(reply[2])
            ours = common[name]
            raise ConfigurationConflict(
                f"LIFECYCLE_{name.upper()}={ours} differs from {theirs}, with which the living replicas of namespace "
                f"{s.namespace!r} run: give all the same value, or stop them all first"
            )
        return float(reply[1])

    async def expire(self, leaving: str = "") -> list[ExpiredReplica]:
        reply = await self._call("expire", self.keys.control, self.settings.lease_secs, leaving, _BATCH)
        return [ExpiredReplica(_text(r), _text(role), orjson.loads(models)) for r, role, models in reply]

    async def finish_cleanup(self, replica: str) -> None:
        """Every shard has been reaped; the tombstone stays."""
        control = self.keys.control
        await self.commands.execute_many(
            [("HDEL", control + "pending_cleanup", replica), ("DEL", control + "replica:" + replica)]
        )

    async def roster(self) -> Roster:
        reply = await self._call("roster", self.keys.control, self.settings.lease_secs)
        replicas = [RosterEntry(_text(i), _text(role), int(ms), about) for i, role, ms, about in reply[1]]
        models = {_text(m): float(at) for m, at in reply[2]}
        return Roster(float(reply[0]), replicas, models, bool(reply[3]))

    async def queue_depth(self, model: str) -> int:
        """Requests that wait for this model, in all shards that answer."""
        keys = [prefix + queue + model for prefix in self._prefixes for queue in ("queue:", "retry:")]
        depths = await asyncio.gather(*(self.commands.execute("XLEN", key) for key in keys), return_exceptions=True)
        for depth in depths:
            if isinstance(depth, BaseException) and not isinstance(depth, StoreUnavailable):
                raise depth
        return sum(depth for depth in depths if isinstance(depth, int))

    async def ping(self) -> None:
        """Whether the part of Redis that every replica needs answers, and takes writes. Raises StoreUnavailable."""
        await self.command("PERSIST", self.keys.control + "config")  # a write that changes nothing

    async def now(self) -> float:
        """The clock that all times of a record are by."""
        secs, micros = await self.command("TIME")
        return int(secs) + int(micros) / 1e6 + self.clock_shift_secs

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[str]]:
        """Keys that match, page by page, from every server that holds a part of them; a page may be empty."""
        for node in await self.commands.nodes():
            cursor = b"0"
            while True:
                cursor, keys = await node.execute("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                yield [key.decode(errors="replace") for key in keys]
                if int(cursor) == 0:
                    break

    async def command(self, *args: Any, retry_for_secs: float = 0.0) -> Any:
        """A plain command that may be repeated, with the same patience as the transitions."""
        return await self._repeat(retry_for_secs, lambda: self.commands.execute(*args))

    async def run(self, name: str, prefix: str, *args: Any, retry_for_secs: float = 0.0) -> Any:
        """A script, in the slot of this prefix."""
        return await self._repeat(retry_for_secs, lambda: self._call(name, prefix, *args))

    async def _in_shard(self, name: str, rid: str, retry_for_secs: float, *args: Any) -> Any:
        return await self.run(name, self._prefixes[self.keys.shard_of(rid)], *args, retry_for_secs=retry_for_secs)

    @staticmethod
    async def _repeat(retry_for_secs: float, call: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat while Redis is away, with growing pauses, for at most `retry_for_secs`."""
        give_up_at, pause = time.monotonic() + retry_for_secs, _FIRST_PAUSE_SECS
        while True:
            try:
                return await call()
            except StoreUnavailable:
                if time.monotonic() + pause > give_up_at:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECS)

    async def _call(self, name: str, prefix: str, *args: Any) -> Any:
        script = self._scripts[name]
        arguments = (prefix, self.clock_shift_secs, *args)
        try:
            return await self.commands.execute("EVALSHA", script.sha, 1, *arguments)
        except NoScriptError:  # a fresh or flushed server: EVAL also loads it
            return await self.commands.execute("EVAL", script.source, 1, *arguments)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _ended(reply: list[Any]) -> Ended:
    what = _text(reply[0])
    if what == "incomplete":
        return Ended(what, last=int(reply[1]))
    return Ended(what, reply[1] if len(reply) > 1 else b"")

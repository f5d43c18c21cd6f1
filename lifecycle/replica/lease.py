"""A replica's membership of its cluster: its entry in the cluster's list, and its lease in each shard.

A heartbeat renews all of them. A shard that is away, or in which the lease has expired, concerns what the replica holds
in that shard and nothing else; while the control slot is away, the replica is only not shown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import ConfigurationConflict, Fenced, LifecycleError, StoreError, StoreForbidden
from lifecycle.ids import new_replica_id
from lifecycle.replica.shard_lease import Holder, ShardLease
from lifecycle.store.instructions import Instruction
from lifecycle.store.transitions import Store
from lifecycle.types import ReplicaState, Role
from lifecycle.version import VERSION

log = logging.getLogger(__name__)

_LIST = -1
_SHOWN_SECS = 0.5  # for which a drained replica is listed with nothing inflight, so that whoever waits can see it


class Lease:
    """The leases of one replica, under a random id that it keeps for as long as it runs."""

    def __init__(
        self,
        store: Store,
        role: Role,
        holder: Holder,
        models: Sequence[str] = (),
        on_sweep_due: Callable[[int], None] | None = None,
    ) -> None:
        """`on_sweep_due` is called with each shard that this replica is to sweep; without it, it is never told to."""
        self.id = new_replica_id(role.value)
        self.role = role
        self.ids = [self.id] * store.settings.shards
        """The id under which each shard knows this replica: another one where its lease has expired."""
        self.started_at = time.time()
        self._store = store
        self._holder = holder
        self._models = tuple(models)
        self._renewed_at = time.monotonic()
        self._announced: dict[str, Any] | None = None  # by the last heartbeat, while the leases are to be kept
        self._announced_forbidden: tuple[str, ...] = ()
        self._followed: Instruction | None = None  # the last instruction of an operator
        self._left = False
        self._draining = False
        self._finished = False  # it has left every shard, and nothing of it is left there
        self._shown = False
        self._sending = asyncio.Lock()
        self._under_way: dict[int, asyncio.Task[None]] = {}  # parts of heartbeats, by shard; _LIST is the announcement
        self._hurried = asyncio.Event()
        # The shards that have lost data and have not been told again what is held, or of which that failed otherwise.
        self.reasserting: set[int] = set()
        self.shards = [
            ShardLease(
                store,
                shard,
                role,
                holder,
                self.ids,
                self._models,
                self.reasserting,
                lambda: self._draining,
                on_sweep_due,
            )
            for shard in range(store.settings.shards)
        ]

    @property
    def age_secs(self) -> float:
        """Return the seconds since Redis last confirmed one of the leases."""
        return time.monotonic() - self._renewed_at

    @property
    def is_announced(self) -> bool:
        """Return whether the replica has joined and not left."""
        return self._announced is not None

    def id_for(self, rid: str) -> str:
        """Return the id under which the shard of a request knows this replica."""
        return self.shard_for(rid).id

    def shard_for(self, rid: str) -> ShardLease:
        """Return the lease in the shard of a request."""
        return self.shards[self._store.keys.shard_of(rid)]

    async def join(self, retry_for_secs: float) -> None:
        """Join the cluster, repeatedly for at most `retry_for_secs`. A shard that is away is joined later.

        Raises StoreUnavailable, or ConfigurationConflict when living replicas run with other common settings.
        """
        await self.announce(retry_for_secs)
        try:
            await self._wait_for(self._begin_renewals(), None)
        except BaseException:
            await self._break_off()
            raise

    async def announce(self, retry_for_secs: float = 0.0) -> None:
        """Show the cluster what this replica is now. Raises StoreUnavailable or ConfigurationConflict."""
        announced = self._about()
        self._draining = announced.get("state") == ReplicaState.DRAINING
        if not self._left:
            instruction = await self._send(self._store, announced, retry_for_secs)
            self._announced = announced
            self._follow(instruction)

    def _about(self) -> dict[str, Any]:
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": self.started_at,
            "version": VERSION,
        }
        unreplicated = dict(self._store.unreplicated.counts)
        about |= ({"unreplicated": unreplicated} if unreplicated else {}) | self._holder.about()
        return about | {"reasserting": sorted(self.reasserting)} | self._about_forbidden(about.get("state"))

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Return the commands that the access rules of Redis forbid this replica, in any shard."""
        return tuple(sorted({command for shard in self.shards for command in shard.forbidden}))

    @property
    def is_forbidden(self) -> bool:
        """Return whether Redis forbids commands in every shard, so that no request can be served."""
        return all(shard.forbidden for shard in self.shards)

    def look_again(self) -> None:
        """Look at once whether commands are forbidden, or are allowed again."""
        for shard in self.shards:
            shard.look_again()
        self.hurry()

    def _about_forbidden(self, state: Any) -> dict[str, Any]:
        """Return what the cluster is to know of forbidden commands. A worker is unhealthy once it has ended its leases.

        Until then the requests that are queued wait for it.
        """
        self._announced_forbidden = self.forbidden
        if not self._announced_forbidden:
            return {}
        about: dict[str, Any] = {"forbidden": list(self._announced_forbidden)}
        waits = self.role is Role.WORKER and any(shard.joined.is_set() for shard in self.shards)
        if state != ReplicaState.READY or not self.is_forbidden or waits:
            return about
        error = f"Redis forbids the {self.role.value} commands that it needs: {', '.join(self._announced_forbidden)}"
        probe_in_secs = self._store.settings.heartbeat_secs
        return about | {"state": ReplicaState.UNHEALTHY, "error": error, "probe_in_secs": probe_in_secs}

    async def _send(self, store: Store, announced: dict[str, Any], retry_for_secs: float = 0.0) -> Instruction | None:
        """Send the heartbeat, and return the latest instruction to this replica."""
        asked_at = time.monotonic()
        instruction = await store.heartbeat(
            self.id, self.role, announced, self._models, followed=self._followed, retry_for_secs=retry_for_secs
        )
        self._renewed_at = max(self._renewed_at, asked_at)
        return instruction

    def _follow(self, instruction: Instruction | None) -> None:
        """Let the holder follow an instruction that it has not followed yet, and show its new state at once."""
        if instruction is None or (self._followed is not None and instruction.revision <= self._followed.revision):
            return
        self._followed = instruction
        self._holder.on_instruction(instruction)
        self.hurry()

    async def renew_through(self, store: Store) -> None:
        """Renew everything over a connection of another thread, with what the last heartbeat has announced.

        It is called while the replica's own event loop is blocked, and does nothing unless `is_announced`. A lease that
        has expired is not renewed. Raises StoreUnavailable or ConfigurationConflict when nothing could be renewed.
        """
        announced = self._announced
        if announced is None:
            return
        store.settings, store.common = self._store.settings, self._store.common
        outcomes = await asyncio.gather(
            self._send(store, announced),
            *(shard.renew_through(store) for shard in self.shards),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(failures) < len(outcomes):
            self._renewed_at = time.monotonic()
        for failure in failures:
            if isinstance(failure, ConfigurationConflict):
                self._announced = None
            if not isinstance(failure, Fenced):
                raise failure

    def hurry(self) -> None:
        """Send the next heartbeat at once: it has something to tell or to learn."""
        self._hurried.set()

    async def run(self) -> None:
        """Send a heartbeat every `heartbeat_secs`, until cancelled or until `leave` was called.

        What one server does not answer in time goes on beside the next heartbeats to the others. Raises
        ConfigurationConflict when living replicas run with other common settings. Other errors are logged, and the next
        heartbeat follows.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout(self._store.settings.heartbeat_secs):
                        await self._hurried.wait()
                except TimeoutError:
                    pass
                self._hurried.clear()
                tasks.check_cancelled()
                async with self._sending:
                    if self._left:
                        return
                    await self._heartbeat()
        finally:
            self._announced = None
            await self._break_off()

    async def _heartbeat(self) -> None:
        begun = [*self._begin(_LIST, self._announce_again()), *self._begin_renewals()]
        await self._wait_for(begun, self._store.settings.heartbeat_secs / 2)

    def _begin_renewals(self) -> list[asyncio.Task[None]]:
        return [task for shard, lease in enumerate(self.shards) for task in self._begin(shard, lease.renew())]

    def _begin(self, part: int, work: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        """Begin a part of a heartbeat, unless that of an earlier one is still under way."""
        if part in self._under_way:
            work.close()
            return []
        task = self._under_way[part] = asyncio.create_task(work, name=f"heartbeat {part}")
        return [task]

    async def _wait_for(self, begun: Sequence[asyncio.Task[None]], timeout_secs: float | None) -> None:
        """Wait for these parts, and handle the outcome of all that have ended. Raises ConfigurationConflict."""
        if begun:
            await asyncio.wait(begun, timeout=timeout_secs)
        for part in [part for part, task in self._under_way.items() if task.done()]:
            failure = self._under_way.pop(part).exception()
            if part == _LIST and failure is not None:
                raise failure
            if part != _LIST:
                self._note_renewal(part, failure)

    async def _announce_again(self) -> None:
        """Announce the replica, with a failure logged. Raises ConfigurationConflict."""
        try:
            await self.announce()
        except StoreError as failure:
            log.warning("A heartbeat failed; the replica is not shown until the next one: %s", failure)
        except LifecycleError:
            raise  # ConfigurationConflict, which a later heartbeat cannot repair
        except Exception:
            log.exception("A heartbeat failed with an unexpected error")

    async def _break_off(self) -> None:
        """End what is under way, whatever comes of it."""
        await tasks.end(self._under_way.values())
        for task in self._under_way.values():
            if not task.cancelled():
                task.exception()  # asyncio logs one that nobody reads
        self._under_way.clear()

    def _note_renewal(self, shard: int, failure: BaseException | None) -> None:
        if self.forbidden != self._announced_forbidden:
            self.hurry()
        if isinstance(failure, StoreForbidden):
            log.warning("Shard %d counts as away until the next heartbeat: %s", shard, failure)
        elif isinstance(failure, StoreError):
            log.warning("The lease in shard %d was not renewed, which the next heartbeat repeats: %s", shard, failure)
        elif failure is not None:
            self.reasserting.add(shard)
            log.error("The reconciliation of shard %d failed with an unexpected error", shard, exc_info=failure)
        else:
            self._renewed_at = time.monotonic()

    async def leave(self, expire: Callable[[int, str], Any]) -> None:
        """Leave the shards as `leave_shards` does, and then the list. What fails is left to the reapers of others."""
        await self.leave_shards(expire)
        await self.leave_list()

    async def leave_shards(self, expire: Callable[[int, str], Any]) -> None:
        """Leave the shards: `run` ends, and `expire` is called with each shard and this replica's id there."""
        self._left, self._announced = True, None
        self._hurried.set()
        async with self._sending:
            await self._break_off()  # no heartbeat is under way, which would join again
            self._finished = await self._leave_shards(expire)

    async def _leave_shards(self, expire: Callable[[int, str], Any]) -> bool:
        """Return whether nothing is left there. A worker whose engine has not ended does not leave in order."""
        stuck = self.role is Role.WORKER and any(self._holder.held(shard) for shard in range(len(self.ids)))
        leaving = [expire(shard, replica) for shard, replica in enumerate(self.ids)]
        left = [self._has_left(outcome) for outcome in await asyncio.gather(*leaving, return_exceptions=True)]
        return all(left) and not stuck

    async def leave_list(self) -> None:
        """Leave the list. Announce first that nothing is left, if that is so, and let it be seen of one that drains.

        Whoever waits for its end knows by that announcement that it was in order: see `Store.fate_of`.
        """
        if self._finished and not self._shown:
            self._shown = True  # a repetition would join again
            try:
                await self._show_finished()
            except (LifecycleError, RedisError) as failure:
                log.warning("%s could not announce that nothing of it is left: %s", self.id, failure)
        try:
            await self._store.leave(self.id, self.role)
        except (StoreError, RedisError) as failure:
            self._has_left(failure)

    async def _show_finished(self) -> None:
        """Announce that nothing is left. Raises StoreUnavailable or ConfigurationConflict."""
        settings = self._store.settings
        announced = self._about() | {"state": ReplicaState.DRAINING, "finished": True}
        await self._send(self._store, announced, settings.redis_timeout_secs)
        if self._draining:
            await asyncio.sleep(min(_SHOWN_SECS, settings.heartbeat_secs))

    async def leave_through(self, store: Store, expire: Callable[[int, str], Any]) -> None:
        """Leave shards and list over this store, whatever `run` does and whatever is left.

        What fails is left to the reapers of others.
        """
        leaving = [expire(shard, replica) for shard, replica in enumerate(self.ids)]
        for outcome in await asyncio.gather(*leaving, store.leave(self.id, self.role), return_exceptions=True):
            self._has_left(outcome)

    def _has_left(self, outcome: object) -> bool:
        """Return whether a part of a leave was done. Raises what no server has to do with."""
        if isinstance(outcome, RedisError):
            log.error("Redis refused a command with which %s leaves", self.id, exc_info=outcome)
        elif isinstance(outcome, BaseException) and not isinstance(outcome, StoreError):
            raise outcome
        return not isinstance(outcome, BaseException)

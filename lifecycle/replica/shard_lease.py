"""A replica's lease in one shard. Reconciling renews it, and compares what the replica holds with what Redis counts.

The cost does not grow with the number of inflight requests: one number is compared, and only differences are returned.
Under load the numbers differ by the requests that are just ending. So the ids are compared only when the numbers have
differed twice in a row, and at most once in a lease, or at once when Redis has lost its data.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

from lifecycle.errors import Fenced, StoreError
from lifecycle.ids import rejoined_id
from lifecycle.replica.shard_permissions import ShardPermissions
from lifecycle.store.instructions import Instruction
from lifecycle.store.results import PendingCancellation, Reconciliation
from lifecycle.store.transitions import Store
from lifecycle.types import Role

log = logging.getLogger(__name__)

_MISMATCHES = 2  # in a row, after which the ids are compared


class Holder(Protocol):
    """The owner of the requests under a lease: the tracker of a frontend, or a worker."""

    def held(self, shard: int) -> Collection[str]:
        """Return the ids of the requests of that shard which this replica holds."""

    def about(self) -> dict[str, Any]:
        """Return the description that `GET /v1/replicas` shows, as a JSON object."""

    async def on_pending_cancellations(self, cancellations: Sequence[PendingCancellation]) -> None:
        """Handle cancellations that may have been missed. Each comes again until it is confirmed."""

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        """Handle requests that this replica holds but Redis does not count as its own."""

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        """Handle requests that Redis counts as this replica's but it does not hold."""

    async def on_new_epoch(self, shard: int) -> None:
        """Handle a shard's loss of its data. `on_not_in_redis` follows with the requests that were lost."""

    async def on_data_lost(self, shard: int) -> None:
        """Handle that a shard may have lost its last writes, as by a failover. What is held is compared afterwards."""

    def on_instruction(self, instruction: Instruction) -> None:
        """Follow an operator's instruction, which comes once. It must not raise."""

    def on_fenced(self, shard: int, expired: str, cause: Fenced) -> None:
        """Let go of all that this replica holds in a shard: its lease there has expired, which it had as `expired`.

        The replica has another id in that shard when this is called, and joins it again afterwards.
        """


class ShardLease:
    """The lease of one replica in one shard, under `ids[shard]`.

    The id is the replica's own at first. When the lease has expired, that id never becomes valid in this shard again,
    and the replica takes another one there, which begins with its own.
    """

    def __init__(
        self,
        store: Store,
        shard: int,
        role: Role,
        holder: Holder,
        ids: list[str],
        models: Sequence[str],
        reasserting: set[int],
        is_draining: Callable[[], bool],
        on_sweep_due: Callable[[int], None] | None,
    ) -> None:
        """`reasserting` has the shards that have lost data and have not been told again what is held.

        `is_draining` returns whether the replica leaves in an orderly way. `on_sweep_due` is called when this replica
        is to sweep the shard; without it, it is never told to.
        """
        self.joined = asyncio.Event()  # set while the lease is held, as far as this replica knows
        self.waits = False  # a worker waits for a bell: see QueueConsumer
        self.on_queued: Callable[[], None] | None = None  # called when something may be queued of which no bell tells
        self._store = store
        self._shard = shard
        self._role = role
        self._holder = holder
        self._ids = ids
        self._replica = ids[shard]
        self._models = models
        self._reasserting = reasserting
        self._is_draining = is_draining
        self._on_sweep_due = on_sweep_due
        self._times_expired = 0
        self._renewed_at: float | None = None  # when the shard has answered last, by the clock of this process
        self._usable_at: float | None = None  # so too, when nothing was forbidden
        self._permissions = ShardPermissions(store, shard, role)
        self._given_up: list[str] = []  # ids whose lease this replica itself has ended, as commands were forbidden
        self._forget()

    def _forget(self) -> None:
        """Begin anew, under an id that the shard has not seen."""
        self._mismatches = 0
        self._compare_at = 0.0
        self._epoch: str | None = None
        self._tick = 0
        self._may_be_lost = False

    @property
    def id(self) -> str:
        """Return the id under which the shard knows this replica."""
        return self._ids[self._shard]

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Return the commands that the access rules of Redis forbid this replica here: the shard counts as away."""
        return self._permissions.forbidden

    def look_again(self) -> None:
        """Let the next heartbeat look whether commands are forbidden."""
        self._permissions.look_again()

    async def renew_through(self, store: Store) -> None:
        """Renew the lease over another connection, if it is held. Raises StoreUnavailable, Fenced."""
        if self.joined.is_set():
            asked_at = time.monotonic()
            await store.reconcile_shard(
                self._shard, self.id, self._role, models=self._models, elapsed_secs=self._elapsed_secs(asked_at)
            )
            self._note_renewal(asked_at)

    def _elapsed_secs(self, now: float) -> float | None:
        """Return the seconds since the shard has answered last; None when it never has."""
        return None if self._renewed_at is None else now - self._renewed_at

    def _note_renewal(self, asked_at: float) -> None:
        self._renewed_at = asked_at if self._renewed_at is None else max(self._renewed_at, asked_at)
        if not self.forbidden:
            self._usable_at = self._renewed_at

    async def renew(self) -> None:
        """Renew the lease and reconcile. Let the holder know when the lease has expired, and join again.

        When the shard has not answered for two leases, the replica assumes that its lease has expired: others may have
        ended what it holds, and its clients must not wait for ever. When Redis forbids commands for two leases, the
        replica ends its lease itself, and joins again once they are allowed. Raises StoreError, and a RedisError when
        Redis refuses a command.
        """
        try:
            await self._renew()
        except Fenced as fenced:
            self._expired(fenced)
            await self.renew()  # a primary that was demoted since may have ended the next id too
        except StoreError as failure:
            limit_secs, now = 2 * self._store.settings.lease_secs, time.monotonic()
            if self.joined.is_set() and now - (self._usable_at or now) > limit_secs:
                what = "forbidden commands" if self.forbidden else "not answered"
                message = f"Redis has {what} for more than two leases ({limit_secs:g} seconds)"
                if self.forbidden:
                    self._given_up.append(self.id)
                self._expired(Fenced(message, error_type=failure.error_type))
                with suppress(StoreError):  # where that is forbidden too, it follows when it is allowed
                    await self._end_given_up()
            raise

    async def _renew(self) -> None:
        """Renew the lease and reconcile, but join only if nothing is forbidden. Raises StoreForbidden if it is."""
        await self._permissions.look(waits=self._role is Role.FRONTEND and bool(self._holder.held(self._shard)))
        if self.forbidden and not self.joined.is_set():
            raise self._permissions.error()
        await self._end_given_up()
        await self._reconcile()
        if self.forbidden:
            raise self._permissions.error()

    async def _end_given_up(self) -> None:
        """End the lease of ids that this replica has given up, so that nobody waits longer for what they hold."""
        while self._given_up:
            await self._store.expire(self._shard, self._given_up[0])
            del self._given_up[0]
            if self._on_sweep_due is not None:
                self._on_sweep_due(self._shard)

    def _expired(self, cause: Fenced) -> None:
        """Take another id in this shard, and let go of what was held under the one before."""
        expired = self.id
        self._times_expired += 1
        self._ids[self._shard] = rejoined_id(self._replica, self._times_expired)
        self._forget()
        self._may_be_lost = True  # a primary that was demoted says so too, and has confirmed ends that are lost with it
        self.joined.clear()
        self._holder.on_fenced(self._shard, expired, cause)

    async def _reconcile(self) -> None:
        shard, held = self._shard, self._holder.held(self._shard)
        now = time.monotonic()
        compare = self._mismatches >= _MISMATCHES and now >= self._compare_at
        reconciliation = await self._ask(held, compare)
        self.joined.set()
        if self._epoch not in (None, reconciliation.epoch):
            log.warning("Redis has lost the data of shard %d; its requests end as state_lost", shard)
            self._reasserting.add(shard)
            await self._holder.on_new_epoch(shard)
            compare = True
            reconciliation = await self._ask(held, compare)
        if reconciliation.tick <= self._tick:  # so too if the epoch was among the last writes
            log.warning(
                "Redis has lost the last writes of shard %d; what is running and what has ended is checked", shard
            )
            self._may_be_lost = True
        if self._may_be_lost:  # until it is checked, after a failure on the way again
            self._reasserting.add(shard)
            await self._holder.on_data_lost(shard)
            compare = True
            reconciliation = await self._ask(held, compare)
            self._may_be_lost = False
        self._tick = reconciliation.tick
        self._epoch = reconciliation.epoch  # set last, so that after a failure on the way this is repeated
        if compare:
            self._compare_at = now + self._store.settings.lease_secs
        if compare or reconciliation.held == len(held):
            self._mismatches = 0
        else:
            self._mismatches += 1
        if reconciliation.pending_cancellations:
            await self._holder.on_pending_cancellations(reconciliation.pending_cancellations)
        if reconciliation.not_in_redis:
            await self._holder.on_not_in_redis(reconciliation.not_in_redis)
        held = self._holder.held(shard)  # now, as some may have come while the ids were read
        if missing := [rid for rid in reconciliation.not_held_locally if rid not in held]:
            await self._holder.on_not_held_locally(missing)
        self._reasserting.discard(shard)

    async def _ask(self, held: Collection[str], compare: bool) -> Reconciliation:
        asked_at = time.monotonic()
        reconciliation = await self._store.reconcile_shard(
            self._shard,
            self.id,
            self._role,
            list(held) if compare else None,
            models=self._models,
            draining=self._is_draining(),
            sweeps=self._on_sweep_due is not None,
            elapsed_secs=self._elapsed_secs(asked_at),
            waits=self.waits,
        )
        self._note_renewal(asked_at)
        if reconciliation.takes and self.on_queued is not None:
            self.on_queued()
        if reconciliation.sweep and self._on_sweep_due is not None:
            self._on_sweep_due(self._shard)
        return reconciliation

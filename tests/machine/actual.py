"""The store, its answers reduced to what the reference model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from unittest.mock import patch

import orjson

from lifecycle.errors import Fenced
from lifecycle.replica.parent_checks import ParentChecks
from lifecycle.store.new_request import Parent
from lifecycle.store.request_trees import Child
from lifecycle.store.results import (
    START_LOST,
    Append,
    Ended,
    ExpiredReplica,
    Failure,
    Offer,
    Outcome,
    StartedAttempt,
    UnservedModel,
)
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, Labels, Role
from tests.admitting import new_request
from tests.joining import join
from tests.machine.drawing import CHECK_SECS, MODELS
from tests.machine.takes import FENCED
from tests.machine.words import Limits, Piece, Share, body_of
from tests.pushes import Pushes

LOST_NONCE = "lost----"


class Actual:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.prefix = store.keys.prefixes[0]
        self._pushes: dict[str, Pushes] = {}
        self._nonces: dict[tuple[str, int], str] = {}  # of the starts
        self._parents: dict[str, Parent] = {}  # of the requests that are to be admitted
        self._children: dict[str, Child] = {}  # that have been claimed

    async def listen(self, frontend: str) -> None:
        if frontend not in self._pushes:
            self._pushes[frontend] = await Pushes.open(self.store, frontend)

    async def pushed(self, frontend: str) -> list[tuple[str, str, Any]]:
        """Since the last call."""
        return await self._pushes[frontend].take()

    async def close(self) -> None:
        for pushes in self._pushes.values():
            await pushes.close()

    async def admit(
        self,
        rid: str,
        nonce: str,
        labels: Labels,
        frontend: str,
        on_disconnect: str,
        grace_secs: int,
        limits: Limits,
        needs: tuple[str, ...],
        storage: str,
        share: Share,
    ) -> tuple[object, ...]:
        new = new_request(
            rid,
            nonce,
            labels,
            frontend,
            body_of(rid),
            on_disconnect,
            grace_secs=grace_secs,
            queue_timeout_secs=limits.queue,
            first_token_timeout_secs=limits.first_token,
            deadline_secs=limits.deadline,
            needs=needs,
            storage=storage,
            owner=share.owner,
            priority=share.priority,
            weight=share.weight,
            max_tokens=share.max_tokens,
            parent=self._parents.get(rid),
        )
        answer = await self.store.admit(new)
        return (answer.outcome, answer.depth) if answer.outcome == "full" else (answer.outcome,)

    async def note_child(self, parent: str, child: str, owner: str) -> tuple[object, ...]:
        noted = await self.store.note_child(parent, child, owner)
        self._parents.pop(child, None)
        if noted.parent is None:
            return (noted.refused,)
        self._parents[child] = noted.parent
        return ("noted", not noted.parent.since, noted.parent.level)

    async def forget_children(self, parent: str, child: str) -> tuple[object, ...]:
        await self.store.forget_children(parent, [child])
        return ()

    async def claim_children(self) -> tuple[object, ...]:
        claimed = await self.store.claim_children(0, CHECK_SECS)
        assert not claimed.more
        self._children.update((child.rid, child) for child in claimed.children)
        return tuple(sorted((child.rid, child.parent) for child in claimed.children))

    async def check_parents(self, rids: Sequence[str]) -> tuple[object, ...]:
        children = [self._children[rid] for rid in rids]
        states = await self.store.parent_states(0, [(child.parent, child.parent_since) for child in children])
        await ParentChecks(self.store).check(children)
        return tuple(states)

    async def fail(self, rid: str, error_type: str, seen: int | None) -> tuple[object, ...]:
        return _ended(await self.store.fail(rid, error_type, "why", seen=seen))

    async def attach(self, rid: str, frontend: str, readers: int) -> tuple[object, ...]:
        try:
            record = await self.store.attach(rid, frontend, readers)
        except Fenced:
            return FENCED
        assert record is not None
        return (record.status.value,)

    async def disconnect(
        self, rid: str, frontend: str, readers: int, connection: str, admitting: bool
    ) -> tuple[object, ...]:
        answer = await self.store.disconnect(rid, frontend, readers, connection, admitting=admitting)
        return (answer.what, answer.first)

    async def cancel(self, rid: str, mode: str) -> tuple[object, ...]:
        answer = await self.store.cancel(rid, CancelMode(mode), "why")
        assert answer is not None
        return (answer.what, answer.record.status.value)

    async def delete_content(self, rid: str) -> tuple[object, ...]:
        answer = await self.store.delete_content(rid)
        assert answer is not None
        return (answer.what, answer.record.status.value)

    async def take(
        self, worker: str, number: int, models: Sequence[str], slots: int, resumable: bool, accepts: tuple[str, ...]
    ) -> tuple[object, ...]:
        nonce = f"{worker:-<5}{number:03}"
        try:
            taken = await self.store.take(0, worker, number, nonce, models, slots, Offer(resumable, accepts))
        except Fenced:
            return FENCED
        if taken is None:
            return ("stale",)
        for run in taken.runs:
            assert self._nonces.setdefault((run.rid, run.start.attempt), nonce) == nonce, "started twice"
        runs = [(run.rid, run.start.attempt, run.start.base, run.start.cancel_mode) for run in taken.runs]
        return ("ok", tuple(runs), tuple(sorted(found.rid for found in taken.unsupported)), taken.waits)

    def _nonce(self, rid: str, attempt: int, is_lost: bool) -> str:
        """Return the nonce of a start; that of a lost one, which had the same number, if it `is_lost`."""
        return LOST_NONCE if is_lost else self._nonces[rid, attempt]

    async def report_lost_start(self, rid: str, attempt: int, is_lost: bool) -> tuple[object, ...]:
        start = StartedAttempt(attempt, self._nonce(rid, attempt, is_lost))
        return _ended(await self.store.report_lost_start(rid, start, START_LOST))

    async def append(self, worker: str, pieces: Sequence[Piece]) -> tuple[object, ...]:
        batch = [
            _append(piece)._replace(nonce=self._nonce(piece.rid, piece.attempt, piece.is_lost)) for piece in pieces
        ]
        try:
            refused = await self.store.append(0, worker, batch)
        except Fenced:
            return FENCED
        return tuple((batch.index(item), why) for item, why in refused)

    async def finish(
        self,
        rid: str,
        worker: str,
        attempt: int,
        outcome: tuple[str, str, str],
        last: int,
        remainder: Piece | None,
    ) -> tuple[object, ...]:
        status, error_type, finish_reason = outcome
        answer = await self.store.finish(
            rid,
            worker,
            attempt,
            Outcome(cast(Any, status), error_type, "why", finish_reason),
            last,
            remainder=_append(remainder) if remainder else None,
            nonce=self._nonce(rid, attempt, False),
        )
        return _ended(answer)

    async def requeue_attempt(self, rid: str, worker: str, attempt: int, failure: Failure | None) -> tuple[object, ...]:
        return (await self.store.requeue(rid, worker, attempt, failure=failure),)

    async def reconcile_shard(self, replica: str, role: Role, rids: Sequence[str] | None) -> tuple[object, ...]:
        try:
            models = MODELS if role == Role.WORKER else ()
            answer = await self.store.reconcile_shard(0, replica, role, rids, models=models)
            await self._forget_limit_time()
        except Fenced:
            return FENCED
        orders = {(order.rid, order.mode) for order in answer.pending_cancellations}
        return (answer.held, orders, set(answer.not_in_redis), set(answer.not_held_locally))

    async def sweep(self, unserved: Sequence[str]) -> tuple[object, ...]:
        swept = await self.store.sweep(0, [UnservedModel(model) for model in unserved])
        assert (swept.more, swept.next_model) == (False, 0)
        return (swept.ended,)

    async def reap(self, replica: str, role: Role) -> tuple[tuple[object, ...], list[str]]:
        """Return what was done, and in which order: that of a worker's requests is Redis's choice, so one a call."""
        expired, order = ExpiredReplica(replica, role.value), list[str]()
        if role != Role.WORKER:
            return tuple(await self.store.reap(0, expired)), order
        left, ended, moved, waiting, done = await self._running(replica), 0, 0, 0, False
        with patch("lifecycle.store.membership.ENDS_LIMIT", 1):
            while not done:
                reaped, before = await self.store.reap(0, expired), left
                left = await self._running(replica)
                order += before - left
                ended, moved, waiting = ended + reaped.ended, moved + reaped.moved, waiting + reaped.waiting
                done = reaped.done
        return (done, ended, moved, waiting), order

    async def _running(self, worker: str) -> set[str]:
        return {rid.decode() for rid in await self.store.command("HKEYS", f"{self.prefix}running:{worker}")}

    async def heartbeat(self, replica: str, role: Role, models: Sequence[str]) -> bool:
        try:
            await join(self.store, replica, role, {}, models)
            await self._forget_limit_time()
        except Fenced:
            return False
        await self._forget_limit_time()
        return True

    async def _forget_limit_time(self) -> None:
        """Time passes here without any step of the clock, also while nobody reconciles: see test_limit_time.py."""
        await self.store.command("HDEL", self.prefix + "clock", "limits_seen", "lag", "half_lease")

    async def expire(self, leaving: str) -> set[str]:
        return {expired.replica for expired in await self.store.expire(0, leaving)}


def _append(piece: Piece) -> Append:
    return Append(piece.rid, piece.attempt, piece.number, orjson.dumps(piece.texts), piece.first)


def _ended(answer: Ended) -> tuple[object, ...]:
    if answer.what == "incomplete":
        return (answer.what, answer.last)
    return (answer.what, answer.record.status.value) if answer.record else (answer.what,)

"""The Store: each transition of a request, as a typed method over one Lua script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lifecycle.store.admissions import Admissions
from lifecycle.store.arguments import MESSAGE_CHARS, encode_detail
from lifecycle.store.contents import Contents
from lifecycle.store.control_slot import ControlSlot
from lifecycle.store.ends import Ends
from lifecycle.store.instructions import Instructions
from lifecycle.store.listings import Listings
from lifecycle.store.membership import Membership, fenced
from lifecycle.store.queues import Queues
from lifecycle.store.request_trees import RequestTrees
from lifecycle.store.results import Append, Cancellation, Disconnection, Failure, Refusal, record_of
from lifecycle.store.runner import as_text
from lifecycle.store.webhooks import WebhookOutbox
from lifecycle.types import OPERATOR_LIBRARY, CancelMode, RequestRecord


class Store(
    Admissions,
    Ends,
    Queues,
    Membership,
    ControlSlot,
    Instructions,
    Listings,
    Contents,
    WebhookOutbox,
    RequestTrees,
):
    """All access to the state of requests and replicas in Redis.

    These rules hold for every transition, here and in Admissions and Ends:

    - Atomicity: it is one script in the slot of the request. It first checks and then writes, so it takes effect as a
      whole or not at all.
    - Ordering: Redis executes the transitions of one request one after the other. The first one that ends the request
      takes effect; later ones return that it has ended. Messages are published by the same script after its writes.
    - Repetition: it may be repeated with the same arguments. The repetition changes nothing, and returns what the
      docstring says. With `retry_for_secs` the Store repeats it while Redis is unavailable.
    - Loss: Redis replicates asynchronously, so a failover or a restart without an append-only file may lose a
      transition that was confirmed. Messages to frontends and workers may be lost at any time. The next heartbeat
      finds both, and the request ends with `state_lost` or `worker_lost` where it cannot go on.
    - Errors: StoreUnavailable when Redis gave no usable answer; the transition may have been executed nevertheless.
      redis.exceptions.ResponseError when a key holds something else than it should.
    """

    async def append(self, shard: int, worker: str, batch: Sequence[Append]) -> list[tuple[Append, Refusal]]:
        """Append one flush of a worker: tokens of many requests of one shard. Return the ones that were refused.

        The whole flush is one atomic script. Each item is accepted or refused by itself, and the frames that its
        frontends get are published by the same script. The order of tokens is that of their numbers: Redis refuses a
        number that is not above the last one. A repeated item is accepted, but neither written nor published again. A
        refusal is final: `gone` (there is no stream, or it lacks the token `before`), `closed` (the request has ended
        or was killed) or `fenced` (the attempt is not this worker's any more, or Redis has lost its start). A full
        memory refuses nothing here: admission stops before.

        There is no `retry_for_secs`: the token writer repeats a flush itself, because tokens gather meanwhile. Raises
        Fenced when the worker has expired; nothing of the flush is written then.
        """
        args: list[Any] = [worker]
        for a in batch:
            args += (a.rid, f"{a.attempt}-{a.number}", a.tokens, a.mark)
        reply = await self._call("append", self._prefixes[shard], *args)
        if reply and reply[0] == b"fenced":
            raise fenced(worker)
        return [(batch[int(index)], cast(Refusal, as_text(why))) for index, why in reply]

    async def cancel(
        self,
        rid: str,
        mode: CancelMode,
        reason: str,
        *,
        by: str = OPERATOR_LIBRARY,
        via: str = "",
        retry_for_secs: float = 0.0,
    ) -> Cancellation | None:
        """Record the intent to stop or kill a request. Return None when the request is unknown.

        `by` says who cancels it, as the record's `cancelled_by`, and `via` through which frontend ('' for none).

        A queued request ends at once. A kill of a running one closes its token stream in the same script, so no token
        follows it; the worker is notified, and the request ends when the worker confirms or has expired. A repetition
        returns the state that the request has then. A kill after a stop takes effect; a stop after a kill changes
        nothing. The message to the worker may be lost, so each heartbeat returns the cancellation until the worker has
        confirmed it.
        """
        reply = await self._in_shard(
            "cancel",
            rid,
            retry_for_secs,
            mode.value,
            reason[:MESSAGE_CHARS],
            by,
            via,
            self.settings.retention_secs,
        )
        record = record_of(reply[1]) if len(reply) > 1 else None
        return Cancellation(cast(Any, as_text(reply[0])), record) if record else None

    async def attach(
        self, rid: str, frontend: str, readers: int, *, retry_for_secs: float = 0.0
    ) -> RequestRecord | None:
        """Send a request's tokens and events to this frontend's inbox from now on, and return its record.

        `readers` is the number of HTTP readers that the frontend has of the request now. It is absolute, so a
        repetition changes nothing; calls of one frontend for one request must not overtake each other. A reader ends a
        disconnect grace that is running. Returns None when the request is unknown. A request that has ended is only
        read. Raises Fenced when the frontend has expired.
        """
        reply = await self._in_shard("attach", rid, retry_for_secs, frontend, readers)
        if reply == [b"fenced"]:
            raise fenced(frontend)
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
        """Record that an HTTP connection has ended, and cancel the request, begin its grace or let it continue.

        `readers` is the number of HTTP readers that are left at this frontend, as in `attach`. `connection` is
        `closed_gracefully`, which never cancels, or `closed_unexpectedly`. `admitting` marks the connection that
        brought the request; its status is stored and published once. A repetition changes nothing, but `first` is then
        False. An expired frontend may still call it.
        """
        reply = await self._in_shard(
            "disconnect",
            rid,
            retry_for_secs,
            frontend,
            readers,
            connection,
            int(admitting),
            self.settings.retention_secs,
        )
        return Disconnection(as_text(reply[0]), bool(reply[1]), float(reply[2]))

    async def requeue(
        self,
        rid: str,
        worker: str,
        attempt: int,
        *,
        failure: Failure | None = None,
        preempted_by: int | None = None,
        retry_for_secs: float = 0.0,
    ) -> str:
        """Queue a request again that runs here, in front of its owner's others, and ring a worker that waits.

        `failure` says why the attempt failed; without it the request is moved in an orderly way, which uses up no
        attempt. `preempted_by` is the priority of the request that gets its slot, if it is moved for one; the record
        counts that. The end of the attempt is marked in the stream, so tokens of it that are under way are refused.
        Returns `requeued`; `ended` when the request ended instead, because a cancel is pending, its attempts are used
        up, or its engine cannot continue behind its tokens; `not` when it is not this worker's; or `unknown`. A
        repetition returns `not`.
        """
        reply = await self._in_shard(
            "requeue",
            rid,
            retry_for_secs,
            worker,
            attempt,
            int(failure is not None and failure.uses_attempt),
            failure.message[:MESSAGE_CHARS] if failure else "",
            encode_detail(failure.detail if failure else None),
            self.settings.max_attempts,
            self.settings.retention_secs,
            "" if preempted_by is None else preempted_by,
        )
        return as_text(reply[0])

    async def is_known(self, rid: str) -> bool:
        """Return whether a request has a record: it is inflight, or has not expired since its end."""
        return bool(await self.command("EXISTS", self.keys.prefix_of(rid) + "request:" + rid, retry_for_secs=0.3))

    async def read(self, rid: str, *, retry_for_secs: float = 0.0) -> RequestRecord | None:
        """Return a request's record with the progress of its stream, or None when it is unknown or has expired."""
        return record_of(await self._in_shard("read", rid, retry_for_secs))

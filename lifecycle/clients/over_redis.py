"""Ask and command a cluster straight over Redis, as an operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Any, Self

from lifecycle.aio import tasks
from lifecycle.clients.arguments import position
from lifecycle.errors import InvalidValue, NotFound, RequestFailed, StateLost
from lifecycle.formats.event_text import events_of
from lifecycle.ids import TokenId
from lifecycle.queries import bulk_cancel, cluster, instructions, queues, timeline, tree
from lifecycle.queries.bulk_cancel import PAGE_MAX, Selector
from lifecycle.records import Cancelled, Inflight, ModelQueue, Replica
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.transitions import Store
from lifecycle.tokens.follow import follow
from lifecycle.tokens.items import End
from lifecycle.tracking.public_errors import public_errors
from lifecycle.tracking.wait_for_end import wait_for_end
from lifecycle.types import OPERATOR_LIBRARY, CancelMode, ErrorType, ReplicaAction, RequestRecord, Status


class ClusterQueries:
    """Answer by the connections that a tracker or a client has. Every method raises Unavailable."""

    def __init__(self, store: Store, subscriptions: Subscriptions) -> None:
        """Use these connections, which the caller owns."""
        self._store = store
        self._subscriptions = subscriptions

    async def inflight(self, model: str) -> Inflight:
        """Count the inflight requests of one model, or of all for an empty name."""
        with public_errors():
            return Inflight.from_json((await cluster.inflight(self._store, model)).to_json())

    async def page(self, filter: Mapping[str, str], limit: int, after: str) -> tuple[list[RequestRecord], bool]:
        """Return a page of records behind the request `after`, newest first, and whether there are more."""
        with public_errors():
            start = await self._page_start(after)
            records, more = await cluster.list_requests(self._store, cluster.Filter(**filter), limit, start)
            return [_shown(record) for record in records], more

    async def _page_start(self, after: str) -> RequestRecord | None:
        if not after:
            return None
        start = await self._store.read(after)
        if start is None:
            raise InvalidValue(
                f"after: the request {after!r} is unknown or has expired; start again without after", param="after"
            )
        return start

    async def get(self, rid: str) -> RequestRecord:
        """Return a record, and of a queued request its wait. Raises NotFound."""
        with public_errors():
            return _shown(await queues.with_wait(self._store, await self._read(rid)))

    async def get_without_wait(self, rid: str) -> RequestRecord:
        """Return a record as a list has it. Raises NotFound."""
        with public_errors():
            return _shown(await self._read(rid))

    async def _read(self, rid: str) -> RequestRecord:
        return _known(rid, await self._store.read(rid, retry_for_secs=0.3))

    async def timeline(self, rid: str, may_see: Callable[[str | None], bool]) -> dict[str, Any]:
        """Return what happened to a request, as `GET /v1/requests/{id}/timeline` shows it. Raises NotFound."""
        with public_errors():
            found = await timeline.read(self._store, rid, may_see)
        _known(rid, found.record if found else None)
        return found.to_json() if found else {}

    async def tree(self, rid: str, may_see: Callable[[str | None], bool]) -> dict[str, Any]:
        """Return the tree of a request, as `GET /v1/requests/{id}/tree` shows it. Raises NotFound."""
        with public_errors():
            found = await tree.read(self._store, rid, may_see)
        if found is None:
            raise _unknown(rid)
        return found.to_json()

    async def has_nothing_after(self, rid: str, after: TokenId) -> bool:
        """Return whether a request has ended, and no event follows this position. Raises NotFound."""
        with public_errors():
            record = _known(rid, await self._store.read(rid))
        return record.status.terminal and record.stream_length == after.number and after.attempt <= record.attempt

    async def events(self, rid: str, after: str | None) -> AsyncGenerator[tuple[str, Any]]:
        """Yield (at, event), live to the end. It does not count as a reader. Raises NotFound, RequestFailed."""
        endpoint = (await self.get_without_wait(rid)).endpoint
        with public_errors():
            try:
                async with aclosing(follow(self._store, rid, position(after))) as items:
                    async for item in items:
                        if isinstance(item, End):
                            if item.status != Status.COMPLETED:
                                raise RequestFailed(ErrorType(item.error_type), item.message, rid, item.detail)
                            return
                        for number, event in enumerate(events_of(endpoint, item.events), item.first):
                            yield f"{item.attempt}-{number}", event
            except StateLost as lost:
                raise RequestFailed(ErrorType.STATE_LOST, lost.message, rid) from None

    async def cancel(
        self,
        rid: str,
        mode: CancelMode,
        reason: str,
        wait_secs: float,
        *,
        by: str = OPERATOR_LIBRARY,
        via: str = "",
    ) -> RequestRecord:
        """Cancel a request and wait for its worker's confirmation, for at most `wait_secs`. Raises NotFound."""
        with public_errors():
            cancellation = await self._store.cancel(rid, mode, reason, by=by, via=via, retry_for_secs=1.0)
            record = _known(rid, cancellation.record if cancellation else None)
            if not record.status.terminal and wait_secs > 0:
                record = await wait_for_end(self._store, self._subscriptions, rid, wait_secs) or record
            return _shown(record)

    async def cancel_many(
        self,
        selector: Mapping[str, Any],
        mode: CancelMode,
        reason: str,
        dry_run: bool,
        after: str,
        *,
        by: str = OPERATOR_LIBRARY,
        via: str = "",
    ) -> Cancelled:
        """Cancel one page of the requests that match."""
        fields = dict(selector)
        older_than_secs = fields.pop("older_than_secs", None)
        with public_errors():
            cancelled = await bulk_cancel.cancel_selected(
                self._store,
                Selector(cluster.Filter(**fields), older_than_secs),
                mode,
                reason,
                by=by,
                via=via,
                limit=PAGE_MAX,
                after=await self._page_start(after),
                dry_run=dry_run,
            )
            return Cancelled.from_json(cancelled.to_json())

    async def replicas(self) -> list[Replica]:
        """Return the living replicas."""
        with public_errors():
            return [Replica.from_json(replica.to_json()) for replica in await cluster.replicas(self._store)]

    async def instruct(self, replica_id: str, action: ReplicaAction, *, by: str = OPERATOR_LIBRARY) -> Replica:
        """Tell a replica to drain, to pause or to resume. Raises NotFound, InvalidValue, Conflict."""
        with public_errors():
            replica = await instructions.instruct(self._store, replica_id, action, by)
            return Replica.from_json(replica.to_json())

    async def queue(self) -> list[ModelQueue]:
        """Return the queues of models."""
        with public_errors():
            return await queues.read_queues(self._store)


class RedisBackend(ClusterQueries):
    """Open connections of its own (`Backend`). Nothing connects before the first call."""

    def __init__(self, settings: Settings) -> None:
        """Prepare to connect as the settings say."""
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        connections = await self._stack.enter_async_context(Connections.open(self._settings))
        listening = asyncio.create_task(connections.subscriptions.run(), name="subscriptions")
        self._stack.push_async_callback(tasks.end, (listening,))
        super().__init__(connections.store, connections.subscriptions)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


def _shown(record: RequestRecord) -> RequestRecord:
    """Return the record with what the HTTP API shows of it."""
    return RequestRecord.from_json(record.to_json())


def _known(rid: str, record: RequestRecord | None) -> RequestRecord:
    if record is None:
        raise _unknown(rid)
    return record


def _unknown(rid: str) -> NotFound:
    return NotFound(f"The request {rid!r} is unknown; its record may have expired")

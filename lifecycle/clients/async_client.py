"""Ask and command a cluster from asyncio code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from lifecycle.clients import arguments
from lifecycle.clients.backend import Backend, all_pages
from lifecycle.errors import InvalidValue
from lifecycle.records import Cancelled, Inflight, ModelQueue, Replica
from lifecycle.types import ReplicaAction, RequestRecord


class AsyncClient:
    """Ask and command one cluster: over HTTP with `url`, else over Redis as an operator.

    Use it in an `async with` block, or end it with `aclose()`. It belongs to one event loop.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Prepare a client; nothing is connected yet.

        `url` is that of any frontend, such as `http://127.0.0.1:8000`, and `api_key` belongs to it. Without it,
        `settings` are those of `LIFECYCLE_*` in lower case and take precedence over the environment.

        Raises InvalidSetting, and InvalidValue for a URL that is none.
        """
        self._backend = make_backend(url, api_key, settings)
        self._is_open = False
        self._opening = asyncio.Lock()  # several calls may be the first

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Backend:
        async with self._opening:
            if not self._is_open:
                await self._backend.__aenter__()
                self._is_open = True
        return self._backend

    async def aclose(self) -> None:
        """Close the connections."""
        async with self._opening:
            if self._is_open:
                self._is_open = False
                await self._backend.__aexit__(None, None, None)

    async def inflight(self, model: str = "") -> Inflight:
        """Count the inflight requests of the cluster, of one model or of all. Raises Unavailable."""
        return await (await self._open()).inflight(model)

    async def requests(
        self,
        status: str = "",
        model: str = "",
        endpoint: str = "",
        frontend: str = "",
        worker: str = "",
        owner: str = "",
    ) -> list[RequestRecord]:
        """Return all records that match every given field, newest first; `status` may also be `inflight`.

        Records are kept for the retention after their end. Raises Unavailable, InvalidValue.
        """
        chosen = arguments.filter_of(status, model, endpoint, frontend, worker, owner)
        return await all_pages(await self._open(), chosen)

    async def _page(self, chosen: dict[str, str], after: str) -> tuple[list[RequestRecord], bool]:
        """Return the page of records behind the request `after`, and whether there are more."""
        return await (await self._open()).page(chosen, arguments.PAGE, after)

    async def get(self, id: str) -> RequestRecord:
        """Return a record. Raises NotFound, Unavailable, InvalidValue."""
        return await (await self._open()).get(arguments.request_id(id))

    async def stream(self, id: str, after: str | None = None) -> AsyncGenerator[Any]:
        """Yield the events of a request, from its start or behind the position `after`, live to its end.

        Over Redis it does not count as a reader. Raises NotFound, Unavailable; RequestFailed when the request failed or
        was cancelled; InvalidValue when the id or the position is malformed.
        """
        async with aclosing(self.events(id, after)) as items:
            async for _, event in items:
                yield event

    async def events(self, id: str, after: str | None = None) -> AsyncGenerator[tuple[str, Any]]:
        """Yield (at, event) as `stream` does; `at` is where to resume behind the event, such as "1-7"."""
        rid, position = arguments.request_id(id), arguments.position(after)
        backend = await self._open()
        async with aclosing(backend.events(rid, str(position) if after is not None else None)) as items:
            async for item in items:
                yield item

    async def cancel(self, id: str, mode: str = "kill", reason: str = "", wait_secs: float = 0.0) -> RequestRecord:
        """Cancel a request and return its record. Cancelling an ended one changes nothing.

        `mode` is `kill`, which ends it now, or `stop`, which lets through what has been produced. `wait_secs` is how
        long to wait for the confirmation that its engine has stopped, over HTTP for at most 30 seconds; until then the
        status is not terminal.

        Raises NotFound, Unavailable, InvalidValue.
        """
        rid, checked, why = arguments.request_id(id), arguments.cancel_mode(mode), arguments.reason(reason)
        waited_secs = arguments.wait_secs(wait_secs)
        return await (await self._open()).cancel(rid, checked, why, waited_secs)

    async def cancel_many(
        self, *, mode: str = "kill", reason: str = "", dry_run: bool = False, **selector: Any
    ) -> Cancelled:
        """Cancel all inflight requests that match every field of the selector.

        Its fields are `status` (`inflight`, `queued` or `running`), `model`, `endpoint`, `frontend`, `worker`, `owner`
        and `older_than_secs`; at least one is needed. With `dry_run` nothing is cancelled.

        Raises Unavailable, InvalidValue.
        """
        checked, chosen = arguments.cancel_mode(mode), arguments.selector_of(selector)
        why, dry_run = arguments.reason(reason), arguments.dry_run(dry_run)
        backend, after, found = await self._open(), "", Cancelled(0, 0, dry_run, False, ())
        while True:
            page = await backend.cancel_many(chosen, checked, why, dry_run, after)
            found = Cancelled(
                found.matched + page.matched,
                found.requested + page.requested,
                dry_run,
                page.has_more,
                found.records + page.records,
            )
            if not page.has_more or not page.records:
                return found
            after = page.records[-1].id

    async def replicas(self) -> list[Replica]:
        """Return the replicas that hold a lease. Raises Unavailable."""
        return await (await self._open()).replicas()

    async def drain(self, replica_id: str) -> Replica:
        """Tell a replica to finish what it has, and then to leave, and return it. Its process ends with exit code 0.

        A tracker refuses further requests, and its application ends it. The replica follows at once, or with its next
        heartbeat, and is listed with `inflight` 0 before it is gone from `replicas()`. One that is gone may have been
        lost instead: for a day, the message of NotFound then says whether it `has left`. `replica_id` is that of a
        `Replica` or of a record.

        Raises NotFound, Unavailable, InvalidValue.
        """
        return await (await self._open()).instruct(arguments.replica_id(replica_id), ReplicaAction.DRAIN)

    async def pause(self, replica_id: str) -> Replica:
        """Tell a worker to take nothing new, and return it. What runs goes on, and its models stay listed.

        Its state is `paused` once it has followed, which it does at once, or with its next heartbeat, and it stays so
        until `resume` or the end of its process. Requests that no other worker takes wait in the queue.

        Raises NotFound; Conflict when it drains; InvalidValue when it is a frontend; Unavailable.
        """
        return await (await self._open()).instruct(arguments.replica_id(replica_id), ReplicaAction.PAUSE)

    async def resume(self, replica_id: str) -> Replica:
        """Tell a paused worker to take requests again, and return it. One that is not paused changes nothing.

        Raises NotFound; Conflict when it drains; InvalidValue when it is a frontend; Unavailable.
        """
        return await (await self._open()).instruct(arguments.replica_id(replica_id), ReplicaAction.RESUME)

    async def queue(self) -> list[ModelQueue]:
        """Return what waits, by model and owner, and for how long it will. Raises Unavailable."""
        return await (await self._open()).queue()


def make_backend(url: str | None, api_key: str | None, settings: dict[str, Any]) -> Backend:
    """Return the backend for the arguments of a client. Raises InvalidSetting, InvalidValue."""
    if url is not None:
        from lifecycle.clients.over_http import HttpBackend  # an HTTP client takes a tenth of a second to import

        if settings:
            raise InvalidValue(f"{', '.join(settings)}: settings of a client over Redis; leave them out with url")
        return HttpBackend(url, api_key)
    if api_key is not None:
        raise InvalidValue("api_key belongs to a client over HTTP; pass url too")
    from lifecycle.clients.over_redis import RedisBackend

    return RedisBackend(arguments.load_settings(settings))

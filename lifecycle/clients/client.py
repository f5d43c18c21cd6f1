"""Ask and command a cluster from code without asyncio: a script, a notebook, an autoscaler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from concurrent import futures
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from lifecycle.aio import tasks
from lifecycle.clients.arguments import filter_of
from lifecycle.clients.async_client import AsyncClient
from lifecycle.errors import Unavailable
from lifecycle.records import Cancelled, Inflight, ModelQueue, Replica
from lifecycle.types import RequestRecord

Result = TypeVar("Result")
_END: Any = object()
_CLOSE_SECS = 5.0


class Client:
    """Ask and command one cluster: over HTTP with `url`, else over Redis as an operator.

    Any number of threads may use it, also from inside a running event loop, which waits meanwhile. Its connections are
    served by a thread of its own. Use it in a `with` block, or end it with `close()`.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Prepare a client; nothing is connected yet. The arguments are those of `AsyncClient`.

        Raises InvalidSetting, and InvalidValue for a URL that is none.
        """
        self._made: AsyncClient | None = None
        self._given = (url, api_key, settings)
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._submitting = threading.RLock()  # no call follows `_end` to the loop; a finalizer may come in between
        self._thread = threading.Thread(target=self._loop.run_forever, name="lifecycle client", daemon=True)
        self._thread.start()
        try:
            self._client: AsyncClient = self._run(self._make())
        except BaseException:
            self.close()
            raise

    async def _make(self) -> AsyncClient:
        url, api_key, settings = self._given
        self._made = AsyncClient(url, api_key, **settings)
        return self._made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. A second call does nothing.

        The calls and streams that other threads wait for raise Unavailable.
        """
        with self._submitting:
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        try:
            ended.result(2 * _CLOSE_SECS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECS)
            if not self._thread.is_alive():
                self._loop.close()

    async def _end(self) -> None:
        """End the calls that other threads wait for, and close the connections."""
        calls = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        await tasks.end(calls, _CLOSE_SECS)
        if self._made is not None:
            await self._made.aclose()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._submitting:
            if self._closed:
                work.close()
                raise Unavailable("this client is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except futures.CancelledError:
            raise Unavailable("this client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def inflight(self, model: str = "") -> Inflight:
        """Count the inflight requests of the cluster, of one model or of all. Raises Unavailable."""
        return self._run(self._client.inflight(model))

    def requests(
        self,
        status: str = "",
        model: str = "",
        endpoint: str = "",
        frontend: str = "",
        worker: str = "",
        owner: str = "",
    ) -> Iterator[RequestRecord]:
        """Yield all records that match every given field, newest first; `status` may also be `inflight`.

        They are read page by page. Raises Unavailable, InvalidValue.
        """
        return self._pages(filter_of(status, model, endpoint, frontend, worker, owner))

    def _pages(self, chosen: dict[str, str]) -> Iterator[RequestRecord]:
        after, has_more = "", True
        while has_more:
            records, has_more = self._run(self._client._page(chosen, after))
            yield from records
            after = records[-1].id if records else ""

    def get(self, id: str) -> RequestRecord:
        """Return a record. Raises NotFound, Unavailable, InvalidValue."""
        return self._run(self._client.get(id))

    def stream(self, id: str, after: str | None = None) -> Generator[Any]:
        """Yield the events of a request, from its start or behind the position `after`, live to its end.

        Over Redis it does not count as a reader. Raises NotFound, Unavailable; RequestFailed when the request failed or
        was cancelled; InvalidValue when the id or the position is malformed.
        """
        for _, event in self.events(id, after):
            yield event

    def events(self, id: str, after: str | None = None) -> Generator[tuple[str, Any]]:
        """Yield (at, event) as `stream` does; `at` is where to resume behind the event, such as "1-7"."""
        reading = _Reading(self._client.events(id, after))
        try:
            while (item := self._run(reading.next())) is not _END:
                yield item
        finally:
            # The garbage collector may end a forgotten stream in the loop's own thread, which cannot wait for itself.
            # The loop then closes the stream, as every asynchronous generator that nobody holds.
            if threading.current_thread() is not self._thread:
                with suppress(Unavailable):  # the client was closed, which has ended the stream
                    self._run(reading.aclose())

    def cancel(self, id: str, mode: str = "kill", reason: str = "", wait_secs: float = 0.0) -> RequestRecord:
        """Cancel a request and return its record. Cancelling an ended one changes nothing.

        `mode` is `kill`, which ends it now, or `stop`, which lets through what has been produced. `wait_secs` is how
        long to wait for the confirmation that its engine has stopped, over HTTP for at most 30 seconds; until then the
        status is not terminal.

        Raises NotFound, Unavailable, InvalidValue.
        """
        return self._run(self._client.cancel(id, mode, reason, wait_secs))

    def cancel_many(self, *, mode: str = "kill", reason: str = "", dry_run: bool = False, **selector: Any) -> Cancelled:
        """Cancel all inflight requests that match every field of the selector.

        Its fields are `status` (`inflight`, `queued` or `running`), `model`, `endpoint`, `frontend`, `worker`, `owner`
        and `older_than_secs`; at least one is needed. With `dry_run` nothing is cancelled.

        Raises Unavailable, InvalidValue.
        """
        return self._run(self._client.cancel_many(mode=mode, reason=reason, dry_run=dry_run, **selector))

    def replicas(self) -> list[Replica]:
        """Return the replicas that hold a lease. Raises Unavailable."""
        return self._run(self._client.replicas())

    def drain(self, replica_id: str) -> Replica:
        """Tell a replica to finish what it has, and then to leave, and return it. Its process ends with exit code 0.

        A tracker refuses further requests, and its application ends it. The replica follows at once, or with its next
        heartbeat, and is listed with `inflight` 0 before it is gone from `replicas()`. One that is gone may have been
        lost instead: for a day, the message of NotFound then says whether it `has left`. `replica_id` is that of a
        `Replica` or of a record.

        Raises NotFound, Unavailable, InvalidValue.
        """
        return self._run(self._client.drain(replica_id))

    def pause(self, replica_id: str) -> Replica:
        """Tell a worker to take nothing new, and return it. What runs goes on, and its models stay listed.

        Its state is `paused` once it has followed, which it does at once, or with its next heartbeat, and it stays so
        until `resume` or the end of its process. Requests that no other worker takes wait in the queue.

        Raises NotFound; Conflict when it drains; InvalidValue when it is a frontend; Unavailable.
        """
        return self._run(self._client.pause(replica_id))

    def resume(self, replica_id: str) -> Replica:
        """Tell a paused worker to take requests again, and return it. One that is not paused changes nothing.

        Raises NotFound; Conflict when it drains; InvalidValue when it is a frontend; Unavailable.
        """
        return self._run(self._client.resume(replica_id))

    def queue(self) -> list[ModelQueue]:
        """Return what waits, by model and owner, and for how long it will. Raises Unavailable."""
        return self._run(self._client.queue())


class _Reading:
    """Read one stream, a call for each event. A call that was interrupted, as by Ctrl-C, may not have ended yet."""

    def __init__(self, items: AsyncGenerator[tuple[str, Any]]) -> None:
        self._items = items
        self._latest: asyncio.Task[Any] | None = None  # the latest call

    async def next(self) -> Any:
        """Return the next item, or _END."""
        self._latest = asyncio.current_task()
        return await anext(self._items, _END)

    async def aclose(self) -> None:
        """End the call that still reads, if any, then close the stream."""
        if self._latest is not None:
            await tasks.end((self._latest,), _CLOSE_SECS)
        await self._items.aclose()

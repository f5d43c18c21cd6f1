"""Ask and command a cluster from code without asyncio: a script, a notebook, an autoscaler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from lifecycle.clients.arguments import filter_of
from lifecycle.clients.async_client import AsyncClient
from lifecycle.errors import Unavailable
from lifecycle.records import Cancelled, Inflight, Replica
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
        """Close the connections and end the thread. A second call does nothing."""
        if self._closed:
            return
        try:
            if self._made is not None:
                self._run(self._made.aclose(), _CLOSE_SECS)
        finally:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECS)
            if not self._thread.is_alive():
                self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Result], timeout_secs: float | None = None) -> Result:
        if self._closed:
            work.close()
            raise Unavailable("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_secs)
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
        items = self._client.events(id, after)
        try:
            while (item := self._run(_next(items))) is not _END:
                yield item
        finally:
            if not self._closed:
                self._run(_close(items))

    def cancel(self, id: str, mode: str = "kill", reason: str = "", wait_secs: float = 0.0) -> RequestRecord:
        """Cancel a request and return its record. Cancelling an ended one changes nothing.

        `mode` is `kill`, which ends it now, or `stop`, which lets through what has been produced. `wait_secs` is how
        long to wait for the confirmation that its engine has stopped; until then the status is not terminal.

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


async def _next(items: Any) -> Any:
    return await anext(items, _END)


async def _close(items: Any) -> None:
    await items.aclose()

"""Define what a client needs of its connection to a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from lifecycle.clients.arguments import PAGE
from lifecycle.records import Cancelled, Inflight, ModelQueue, Replica
from lifecycle.types import CancelMode, ReplicaAction, RequestRecord


class Pages(Protocol):
    """List records page by page."""

    async def page(self, filter: Mapping[str, str], limit: int, after: str) -> tuple[list[RequestRecord], bool]:
        """Return a page of records behind the request `after`, newest first, and whether there are more."""


class Backend(Pages, Protocol):
    """Ask and command one cluster. Arguments have been checked. Each method raises Unavailable."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""

    async def inflight(self, model: str) -> Inflight:
        """Count the inflight requests of one model, or of all for an empty name."""

    async def get(self, rid: str) -> RequestRecord:
        """Return a record. Raises NotFound."""

    def events(self, rid: str, after: str | None) -> AsyncGenerator[tuple[str, Any]]:
        """Yield (at, event), live to the end. Raises NotFound, RequestFailed."""

    async def cancel(self, rid: str, mode: CancelMode, reason: str, wait_secs: float) -> RequestRecord:
        """Cancel a request and return its record. Raises NotFound."""

    async def cancel_many(
        self, selector: Mapping[str, Any], mode: CancelMode, reason: str, dry_run: bool, after: str
    ) -> Cancelled:
        """Cancel one page of the requests that match."""

    async def replicas(self) -> list[Replica]:
        """Return the living replicas."""

    async def instruct(self, replica_id: str, action: ReplicaAction) -> Replica:
        """Tell a replica to drain, to pause or to resume. Raises NotFound, InvalidValue, Conflict."""

    async def queue(self) -> list[ModelQueue]:
        """Return the queues of the models that living workers serve, or that requests wait for."""


async def all_pages(pages: Pages, filter: Mapping[str, str]) -> list[RequestRecord]:
    """Return the records of all pages that match, newest first. Raises Unavailable."""
    records: list[RequestRecord] = []
    has_more = True
    while has_more:
        page, has_more = await pages.page(filter, PAGE, records[-1].id if records else "")
        records += page
    return records

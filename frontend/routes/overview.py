"""Serve `GET /v1/overview`: the live state of the cluster as server-sent events, for the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from frontend.dashboard.dashboard_feed import MAX_VIEWERS, DashboardFeed, ListingQuery, Viewer
from frontend.transport import params
from frontend.transport.deps import get_tracker
from lifecycle.aio import tasks
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.integers import parse_integer
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, Status

router = APIRouter()

ORDERS = ("oldest", "newest")
ACTIVE = (Status.QUEUED, Status.RUNNING)
OUTCOMES = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
MAX_ROWS = 200
MAX_CHARS = 128
_DEFAULT_ROWS = 50
_MAX_WORDS = 8


@router.get("/v1/overview")
async def overview(request: Request) -> Response:
    """Stream events `{"cluster": …, "requests": …}`: each of the two is a `snapshot` first, and a `delta` afterwards.

    `{"trouble": "…"}` says that Redis is unavailable. A slow viewer skips versions and then gets a snapshot.
    Raises ApiError: 400 for an invalid query, 503 when this frontend drains or has too many viewers.
    """
    tracker, dashboard_feed = get_tracker(request), request.app.state.dashboard_feed
    if tracker.draining:
        message = "This frontend is draining; open the dashboard of another frontend"
        raise ApiError(ErrorType.UNAVAILABLE, message, code="draining")
    if dashboard_feed.is_full:
        message = f"This frontend has reached its limit of {MAX_VIEWERS} viewers; use another frontend"
        raise ApiError(ErrorType.UNAVAILABLE, message, code="overloaded")
    return OverviewResponse(tracker, dashboard_feed, parse_listing_query(request.query_params))


def parse_listing_query(query: Mapping[str, str]) -> ListingQuery:
    """Check and convert the query parameters. Raises ApiError (400)."""
    text = query.get("q", "")
    if len(text) > MAX_CHARS:
        raise params.invalid_parameter(f"q must be at most {MAX_CHARS} characters", "q")
    return ListingQuery(
        params.one_of(query.get("order", ""), "order", ORDERS) or ORDERS[0],
        params.one_of(query.get("status", ""), "status", ACTIVE),
        params.one_of(query.get("outcome", ""), "outcome", OUTCOMES),
        tuple(text.lower().split()[:_MAX_WORDS]),
        parse_integer(query.get("rows"), "rows", _DEFAULT_ROWS, 1, MAX_ROWS),
    )


class OverviewResponse(Response):
    """Stream the overview to one viewer.

    Ends when the viewer disconnects, reads nothing for `LIFECYCLE_SLOW_CONSUMER_SECS`, or the frontend drains.
    """

    def __init__(self, tracker: Tracker, dashboard_feed: DashboardFeed, query: ListingQuery) -> None:
        super().__init__(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache, no-transform",
                "x-accel-buffering": "no",
            }
        )
        del self.headers["content-length"]
        self._tracker = tracker
        self._dashboard_feed = dashboard_feed
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if ClientConnection.of(scope).is_head:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        writer = asyncio.create_task(self._write(send), name="overview")
        listener = asyncio.create_task(_until_disconnect(receive), name="disconnect listener")
        try:
            await asyncio.wait((writer, listener), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        except TimeoutError:
            ClientConnection.of(scope).abort()
        finally:
            await tasks.end((writer, listener))

    async def _write(self, send: Send) -> None:
        """Write the whole response. Raises TimeoutError when the viewer reads nothing for too long."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with self._dashboard_feed.listing(self._query) as listing:
            viewer = Viewer(self._dashboard_feed, listing)
            while not self._tracker.draining:
                event = await viewer.next()
                await self._send_event(send, event, more=True)
        await self._send_event(send, b"", more=False)

    async def _send_event(self, send: Send, event: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._tracker.settings.slow_consumer_secs):
            await send({"type": "http.response.body", "body": event, "more_body": more})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

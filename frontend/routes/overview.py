"""`GET /v1/overview`: the cluster live, as server-sent events: what the dashboard is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from frontend.dashboard.board import Board, Selection, Viewer
from frontend.transport import params
from frontend.transport.deps import get_tracker
from lifecycle.aio import tasks
from lifecycle.fastapi.errors import ApiError
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
    """An event is `{"cluster": …, "requests": …}`, each of the two a `snapshot` first and then a `delta`.

    `{"trouble": "…"}` says that Redis cannot be asked now. A viewer that is slow misses pictures, never changes.
    """
    tracker, board = get_tracker(request), request.app.state.board
    if tracker.draining:
        raise ApiError(ErrorType.UNAVAILABLE, "This frontend is draining; another one will show it", code="draining")
    if board.full:
        raise ApiError(ErrorType.UNAVAILABLE, "This frontend has as many viewers as it may", code="overloaded")
    return OverviewResponse(tracker, board, selection(request.query_params))


def selection(query: Mapping[str, str]) -> Selection:
    """Raises ApiError."""
    text = query.get("q", "")
    if len(text) > MAX_CHARS:
        raise params.bad(f"q must be at most {MAX_CHARS} characters", "q")
    return Selection(
        params.one_of(query.get("order", ""), "order", ORDERS) or ORDERS[0],
        params.one_of(query.get("status", ""), "status", ACTIVE),
        params.one_of(query.get("outcome", ""), "outcome", OUTCOMES),
        tuple(text.lower().split()[:_MAX_WORDS]),
        params.integer(query.get("rows"), "rows", _DEFAULT_ROWS, 1, MAX_ROWS),
    )


class OverviewResponse(Response):
    """Ends when the viewer goes, when it takes nothing for too long, or when this frontend drains."""

    def __init__(self, tracker: Tracker, board: Board, selection: Selection) -> None:
        super().__init__(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache, no-transform",
                "x-accel-buffering": "no",
            }
        )
        del self.headers["content-length"]
        self._tracker = tracker
        self._board = board
        self._selection = selection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.create_task(self._write(send), name="overview")
        listener = asyncio.create_task(_until_disconnect(receive), name="disconnect listener")
        try:
            await asyncio.wait((writer, listener), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        except TimeoutError:
            abort = scope.get("extensions", {}).get("lifecycle.abort")
            if abort is not None:
                abort()
        finally:
            await tasks.end((writer, listener))

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with self._board.listing(self._selection) as listing:
            viewer = Viewer(self._board, listing)
            while not self._tracker.draining:
                event = await viewer.next()
                async with asyncio.timeout(self._tracker.settings.slow_consumer_secs):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""`GET /v1/overview`: the cluster live, as server-sent events. What the dashboard shows, anybody may read."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive, Scope, Send

from frontend.dashboard.board import Board, Selection, Viewer
from frontend.deps import get_tracker
from frontend.errors import ApiError
from lifecycle import tasks
from lifecycle.model import ErrorType
from lifecycle.tracker import Tracker

router = APIRouter()

_MAX_WORDS = 8


@router.get(
    "/v1/overview",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "One JSON object an event, one a second"}},
)
async def overview(
    request: Request,
    order: Annotated[Literal["oldest", "newest"], Query(description="which of those inflight come first")] = "oldest",
    status: Annotated[Literal["", "queued", "running"], Query(description="of those inflight")] = "",
    outcome: Annotated[Literal["", "completed", "failed", "cancelled"], Query(description="of those finished")] = "",
    q: Annotated[str, Query(max_length=128, description="words that id, model, status or replica contain")] = "",
    rows: Annotated[int, Query(ge=1, le=200, description="how many of those inflight at most")] = 50,
) -> Response:
    """The whole cluster, live.

    An event is `{"cluster": …, "requests": …}`. Each of the two is a `snapshot` first and then a `delta`: of a table,
    `set` has rows with their id and what is new of them, `gone` has ids. A part that is not due is left out.
    `{"trouble": "…"}` says that Redis cannot be asked now. A viewer that is slow misses pictures, never changes.
    """
    tracker, board = get_tracker(request), request.app.state.board
    if tracker.draining:
        raise ApiError(ErrorType.UNAVAILABLE, "This frontend is draining; another one will show it", code="draining")
    if board.full:
        raise ApiError(ErrorType.UNAVAILABLE, "This frontend has as many viewers as it may", code="overloaded")
    words = tuple(q.lower().split()[:_MAX_WORDS])
    return OverviewResponse(tracker, board, Selection(order, status, outcome, words, rows))


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

"""Give a route what it needs to track its call: the dependency `Tracked`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from lifecycle.application.tracked_attempt import Source
from lifecycle.application.tracker import Tracker
from lifecycle.errors import Conflict, InvalidValue, LifecycleError, Overloaded, Unavailable
from lifecycle.fastapi.connected import Connected, owner_of
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.run_response import RunResponse, prefers_lines
from lifecycle.ids import new_request_id
from lifecycle.types import ErrorType


class TrackedCall:
    """Represent the call of a route that may be tracked. It starts nothing by itself.

    `id` is the call's `X-Request-Id`, or a new id where it has none or REQUEST_ID_HEADER is off; `owner` is whose the
    call is, '' for nobody's; `tracker` is the tracker of the application.
    """

    def __init__(self, request: Request, tracker: Tracker, owner: str) -> None:
        """Use the dependency `Tracked` instead, which calls this."""
        given = request.headers.get("x-request-id") if tracker.settings.request_id_header else None
        self.id = given or new_request_id("app-")
        self.owner = owner
        self.tracker = tracker
        self._lines = prefers_lines(request.headers.get("accept", ""))

    async def stream(
        self,
        source: Source,
        *,
        model: str,
        on_disconnect: str | None = None,
        deadline_secs: float | None = None,
        parent: str | None = None,
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Track a source and return the response that streams its events; return it from the route.

        It is NDJSON if the call accepts `application/x-ndjson`, else server-sent events with ids and `[DONE]` at the
        end; a run that failed ends with an error object. The client's disconnect is one from the run. `headers` are
        added to the response; the other arguments are those of `Tracker.track`.

        A call that is not admitted gets its error as the response: 400 for a malformed id or argument, 409 with
        `x-should-retry: false` for an id that is in use, 429 and 503 with `Retry-After`.
        """
        try:
            run = await self.tracker.track(
                source,
                model=model,
                id=self.id,
                owner=self.owner,
                on_disconnect=on_disconnect,
                deadline_secs=deadline_secs,
                parent=parent,
                labels=labels,
            )
        except (Conflict, InvalidValue, Overloaded, Unavailable) as refused:
            return refusal(refused, self.id)
        slow_consumer_secs = self.tracker.settings.slow_consumer_secs
        return RunResponse(run, lines=self._lines, slow_consumer_secs=slow_consumer_secs, headers=headers)


def refusal(refused: LifecycleError, rid: str = "") -> Response:
    """Return the response to a call that the tracker has refused."""
    if isinstance(refused, Conflict):
        error = ApiError(
            ErrorType.VALIDATION, refused.message, status=409, code="request_id_in_use", param="X-Request-Id"
        )
    else:
        error = ApiError(
            refused.error_type, refused.message, retry_after_secs=getattr(refused, "retry_after_secs", None)
        )
    response = Response(error.body(), error.status, error.headers())
    if rid and error.error_type is not ErrorType.VALIDATION:
        response.headers["x-request-id"] = rid
    return response


async def _tracked(request: Request) -> TrackedCall:
    connected = Connected.of(request)
    return TrackedCall(request, connected.tracker, await owner_of(connected.owner, request))


Tracked: TypeAlias = Annotated[TrackedCall, Depends(_tracked)]
"""The dependency: `async def route(tracked: lifecycle.fastapi.Tracked)`."""

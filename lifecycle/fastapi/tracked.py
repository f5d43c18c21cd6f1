"""Give a route what it needs to track its call: the dependency `Tracked`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from lifecycle.application.tracked_attempt import Source
from lifecycle.application.tracker import Tracker
from lifecycle.errors import (
    Conflict,
    InvalidValue,
    LifecycleError,
    NotFound,
    Overloaded,
    ParentEnded,
    ParentNotFound,
    Unavailable,
)
from lifecycle.execution.engine import aclose
from lifecycle.fastapi.connected import Connected, owner_of
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.run_response import RunResponse, prefers_lines
from lifecycle.ids import new_request_id
from lifecycle.types import ErrorType

_PARENT = "X-Parent-Request-Id"


class TrackedCall:
    """Represent the call of a route that may be tracked. It starts nothing by itself.

    `id` is the call's `X-Request-Id`, or a new id where it has none or REQUEST_ID_HEADER is off; `owner` is whose the
    call is, '' for nobody's; `parent` is its `X-Parent-Request-Id`, None without one; `tracker` is the tracker of the
    application.
    """

    def __init__(self, request: Request, tracker: Tracker, owner: str) -> None:
        """Use the dependency `Tracked` instead, which calls this."""
        given = request.headers.get("x-request-id") if tracker.settings.request_id_header else None
        self.id = given or new_request_id("app-")
        self.owner = owner
        self._has_owners = False
        self.parent = request.headers.get("x-parent-request-id")
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
        added to the response; the other arguments are those of `Tracker.track`, and `parent` is by default the call's
        `X-Parent-Request-Id`, which must be of a request of the same owner.

        A call that is not admitted gets its error as the response: 400 for a malformed id or argument, 404 for an
        unknown parent, 409 with `x-should-retry: false` for an id that is in use or a parent that has ended, 429 and
        503 with `Retry-After`.
        """
        try:
            if parent is None and self.parent is not None:
                parent = self.parent
                await self._check_parent(parent, source)
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
        except (Conflict, InvalidValue, NotFound, Overloaded, Unavailable) as refused:
            return refusal(refused, self.id)
        slow_consumer_secs = self.tracker.settings.slow_consumer_secs
        return RunResponse(run, lines=self._lines, slow_consumer_secs=slow_consumer_secs, headers=headers)

    async def _check_parent(self, parent: str, source: Source) -> None:
        """Check that a caller who is nobody names no parent of somebody's. Raises what `Tracker.get` raises."""
        if not self._has_owners or self.owner:
            return
        try:
            with suppress(NotFound):
                if not (await self.tracker.get(parent)).owner:
                    return
            raise ParentNotFound(f"The parent {parent!r} is unknown; its record may have expired")
        except BaseException:
            await aclose(source)
            raise


def refusal(refused: LifecycleError, id: str = "") -> Response:
    """Return the response to a call whose request was refused, such as by `Tracker.submit`.

    It is an error object of OpenAI's format with the status of the error: 400 for what is malformed, 404 for what is
    unknown, 409 with `x-should-retry: false` for an id that is in use or a parent that has ended, 429 and 503 with
    `Retry-After`. `id` becomes its `X-Request-Id`, but for 400 and 409, which may be because of it.
    """
    if isinstance(refused, ParentEnded):
        error = ApiError(ErrorType.VALIDATION, refused.message, status=409, code="parent_ended", param=_PARENT)
    elif isinstance(refused, ParentNotFound):
        error = ApiError(ErrorType.NOT_FOUND, refused.message, code="parent_not_found", param=_PARENT)
    elif isinstance(refused, Conflict):
        error = ApiError(
            ErrorType.VALIDATION, refused.message, status=409, code="request_id_in_use", param="X-Request-Id"
        )
    else:
        error = ApiError(
            refused.error_type,
            refused.message,
            param=getattr(refused, "param", None),
            retry_after_secs=getattr(refused, "retry_after_secs", None),
        )
    response = Response(error.body(), error.status, error.headers())
    if id and error.error_type is not ErrorType.VALIDATION:
        response.headers["x-request-id"] = id
    return response


async def _tracked(request: Request) -> TrackedCall:
    connected = Connected.of(request)
    owner = await owner_of(connected.owner, request)
    call = TrackedCall(request, connected.tracker, owner)
    call._has_owners = connected.owner is not None
    return call


Tracked: TypeAlias = Annotated[TrackedCall, Depends(_tracked)]
"""The dependency: `async def route(tracked: lifecycle.fastapi.Tracked)`."""

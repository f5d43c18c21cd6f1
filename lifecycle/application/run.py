"""Read the events of one request: one that was tracked or submitted here, or that is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

from lifecycle.application.local_attempts import LocalAttempts
from lifecycle.application.tracked_attempt import TrackedAttempt
from lifecycle.errors import RequestFailed, StoreError
from lifecycle.formats.event_text import events_of
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import Item
from lifecycle.tracking.admission import AdmittedRequest
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import FORWARDS, CancelMode, ErrorType, Status

_CLOSE_SECS = 5.0  # that closing waits for Redis and for the source's own end


class _Reading:
    """Hold one reader of a request. Leaving the `async with` block, or `aclose()`, is a disconnect."""

    def __init__(
        self,
        core: Tracker,
        admitted: AdmittedRequest,
        local: LocalAttempts,
        attempt: TrackedAttempt | None = None,
    ) -> None:
        self._core = core
        self.id = admitted.rid
        self.created_at = admitted.created_at
        self._admitted = admitted
        self._local = local
        self._attempt = attempt
        self._entered = False  # the block's end disconnects, and a broken-off loop does not
        self._closed = False
        self._end: End | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. If the end has not been read, that is a disconnect, which may cancel the request.

        A tracked request that it cancels has ended when this returns, unless its source does not end or Redis is away;
        that is waited for a few seconds. A second call does nothing. It raises nothing.
        """
        if self._closed:
            return
        self._closed = True
        admitted = self._admitted
        if self._attempt is not None:
            self._attempt.held_back_sink.stop_holding_back()
        if self._end is not None:
            admitted.connection.disarm()
        # What follows is only waiting: a cancellation of the caller leaves nothing undone.
        admitted.connection.close()
        admitted.stream.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECS):
                disconnection = await asyncio.shield(admitted.detached)
                if self._attempt is not None and disconnection is not None and disconnection.what == "pending":
                    self._attempt.cancel(CancelMode.KILL)
                    await self._local.wait(self.id, _CLOSE_SECS)

    async def _fail_slow_consumer(self, message: str) -> None:
        """Fail the request, as its client takes nothing; it goes on if it has other readers or may do so."""
        with suppress(StoreError):
            await self._core.fail_slow_consumer(self._admitted.reader, message)

    def events(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield (at, event) for each further event; `at` is where to resume behind it, such as "1-7".

        Ends when the request has completed. Raises RequestFailed when it failed or was cancelled.
        """
        return self._read()

    async def _items(self) -> AsyncGenerator[Item]:
        """Yield what comes together, SILENCE after a keepalive interval without anything, and at last an End.

        The events are as they were yielded, also those of a forward.
        """
        reader, attempt, endpoint = self._admitted.reader, self._attempt, self._admitted.endpoint
        while self._end is None and not self._closed:
            item = await reader.next()
            if isinstance(item, End):
                self._end = item
            elif isinstance(item, Tokens) and endpoint in FORWARDS:
                item = item._replace(events=list(events_of(endpoint, item.events)))
            yield item
            if attempt is not None and isinstance(item, Tokens):
                attempt.held_back_sink.note_read(len(item.events))

    async def _read(self) -> AsyncGenerator[tuple[str, Any]]:
        try:
            async with aclosing(self._items()) as items:
                async for item in items:
                    if isinstance(item, Tokens):
                        for number, event in enumerate(item.events, item.first):
                            yield f"{item.attempt}-{number}", event
        finally:
            if self._end is not None or not self._entered:
                await self.aclose()
        if self._end is not None and self._end.status != Status.COMPLETED:
            end = self._end
            raise RequestFailed(ErrorType(end.error_type), end.message, self.id, end.detail)


class Run(_Reading):
    """A request that was tracked or submitted here. Iterate over it for its events, once.

    `id` is the request's id and `created_at` its admission in Unix seconds. Leaving its `async with` block is a
    disconnect at once; a bare `async for` that is broken off is one soon after.
    """

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield each event. Raises RequestFailed when the request failed or was cancelled."""
        async with aclosing(self._read()) as items:
            async for _, event in items:
                yield event


class Resumed(_Reading):
    """A reader of any request of the cluster, from behind a position. Iterate over it for (at, event), once.

    It counts as a reader: while it is open the request is not cancelled because its client has gone.
    """

    def __aiter__(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield (at, event). Raises RequestFailed when the request failed or was cancelled."""
        return self.events()

"""Stream the events of a request to a client that reads it, which need not be the one that started it."""

from __future__ import annotations

from frontend.endpoints.endpoint import EventEncoder
from frontend.endpoints.stream import TokenStreamResponse
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.tracker import Tracker


class ReaderResponse(TokenStreamResponse):
    """Stream what the reader delivers, and close it."""

    def __init__(self, tracker: Tracker, reader: TokenReader, encoder: EventEncoder) -> None:
        super().__init__(reader, encoder, tracker.settings.slow_consumer_secs)
        self._tracker = tracker

    async def on_slow(self, message: str) -> None:
        await self._tracker.fail_slow_consumer(self._reader, message)

    async def on_closed(self, gracefully: bool) -> None:
        status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
        await self._tracker.close_reader(self._reader, status)

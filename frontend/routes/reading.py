"""Stream the events of a request to a client that reads it, which need not be the one that started it."""

from __future__ import annotations

from frontend.endpoints.endpoint import EventEncoder
from frontend.endpoints.stream import TokenStreamResponse
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.tracker import Tracker


def stream_reader(tracker: Tracker, reader: TokenReader, encoder: EventEncoder) -> TokenStreamResponse:
    """Return the response that streams what the reader delivers. It closes the reader."""

    async def on_closed(gracefully: bool) -> None:
        status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
        await tracker.close_reader(reader, status)

    async def on_slow(message: str) -> None:
        await tracker.fail_slow_consumer(reader, message)

    return TokenStreamResponse(
        reader,
        encoder,
        slow_consumer_secs=tracker.settings.slow_consumer_secs,
        on_begin=lambda: None,
        on_closed=on_closed,
        on_slow=on_slow,
    )

"""Encode events that are JSON values as server-sent events: of an application's own endpoint, or of a forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle.encoding import encode_json
from lifecycle.fastapi.errors import error_frame
from lifecycle.tokens.items import End
from lifecycle.types import ErrorType, Status

DONE = b"data: [DONE]\n\n"
"""The last server-sent event of every stream that the server ends, but of endpoints whose format has another."""


class JsonEventEncoder:
    """Encode the events of one request: one `data:` line of JSON for each, with its id."""

    is_holding = False

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def tokens(self, attempt: int, first: int, events: Sequence[Any]) -> bytes:
        """Return one server-sent event for each event; the first one has the number `first`."""
        return b"".join(
            b"id: %d-%d\ndata: %b\n\n" % (attempt, number, encode_json(event))
            for number, event in enumerate(events, first)
        )

    def release(self) -> bytes:
        """Return nothing: no event is held back."""
        return b""

    def ending(self, end: End) -> bytes:
        """Return what ends the stream: the error, if the request failed, and `[DONE]`."""
        if end.status == Status.COMPLETED:
            return DONE
        return error_frame(ErrorType(end.error_type), end.message, self._request_id, end.detail) + DONE

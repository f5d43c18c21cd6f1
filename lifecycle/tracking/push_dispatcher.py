"""Hand what Redis pushes to a frontend to the requests it concerns."""

from __future__ import annotations

from typing import Any

from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.readers import Readers


class PushDispatcher:
    """Route the items of inbox frames."""

    def __init__(self, state: FrontendState, readers: Readers, owned: OwnedRequests) -> None:
        self._state = state
        self._feeds = readers.feeds
        self._readers = readers
        self._owned = owned

    def dispatch(self, rid: str, entry_id: str, payload: Any, nonce: str = "") -> None:
        """Route one item: token events, with the nonce of their start, or an event.

        Raises KeyError, TypeError or ValueError on a bad one.
        """
        feed = self._feeds.get(rid)
        if type(payload) is list or type(payload) is EncodedEvents:
            if feed is not None:
                feed.take_tokens(entry_id, payload, nonce)
        elif payload["type"] == "reassigned":
            if payload["frontend"] == self._state.id_for(rid):
                self._owned.take_over([rid])
        elif feed is not None:
            feed.take_event(payload)

    def mark_stale(self, shard: int) -> None:
        """Check the records of the shard's requests: what the shard has pushed meanwhile is lost."""
        self._readers.mark_stale(shard)
        self._owned.mark_stale(shard)

"""Limit what one owner may have queued."""

from __future__ import annotations

from typing import NamedTuple


class QueueShare(NamedTuple):
    """Limit what an owner may have queued for one model, besides the limits of the settings; 0 is no further limit."""

    requests: int = 0
    tokens: int = 0  # as estimated at admission
    body_bytes: int = 0


NO_SHARE = QueueShare()

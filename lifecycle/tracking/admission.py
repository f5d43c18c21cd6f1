"""What a frontend asks for when it admits a request, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionHandle
from lifecycle.tracking.monitor import Limits
from lifecycle.types import Labels, OnDisconnect


class AdmissionRequest(NamedTuple):
    """What a frontend wants to have done."""

    rid: str
    labels: Labels
    body: bytes
    on_disconnect: OnDisconnect
    grace_secs: float
    limits: Limits
    traceparent: str = ""
    idempotency: str = ""  # what a repetition of the call is known by
    owner: str = ""  # on whose behalf; '' for nobody in particular
    inflight_limit: int = 0  # of the owner's; 0 is none


class Rejected(Exception):
    """Not admitted: `exists`, `full`, `limit` (the owner's) or `draining`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class AdmittedRequest:
    """A request as its client sees it: a reader, and the handles of its connection and of its response's stream.

    `attached`: another call has brought the request.
    """

    rid: str
    created_at: float
    reader: TokenReader
    connection: ConnectionHandle
    stream: ConnectionHandle
    attached: bool = False

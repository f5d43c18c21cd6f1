"""Describe what a frontend gets when it admits a request: the request, or why it is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from lifecycle.store.request_trees import CHILDREN_LIMIT, DEPTH_LIMIT
from lifecycle.store.results import Disconnection
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionHandle

ParentRefusal = Literal["no_parent", "parent_ended", "too_deep", "too_many_children"]


class Rejected(Exception):
    """Raised when a request is not admitted.

    `reason` is `exists`, `full` (of the owner's requests for the model), `full_model` (of all requests for the model),
    `full_bytes` (the bodies of all queues), `queue_limit` (of what the owner may have queued), `limit` (the owner's
    inflight limit), `hopeless` (the deadline would pass in the queue), `draining`, or a ParentRefusal; with an
    idempotency key also `other_body` (the key was sent with another body) or `contended` (try again). Its
    retry_after_secs is when a place may be free; None where nothing tells.
    """

    def __init__(self, reason: str, retry_after_secs: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_secs = retry_after_secs


class RefusedParent(Rejected):
    """Raised when a request is not admitted because of its parent. `message` says why."""

    reason: ParentRefusal

    def __init__(self, reason: ParentRefusal, parent: str) -> None:
        super().__init__(reason)
        self.message = {
            "no_parent": f"The parent {parent!r} is unknown; its record may have expired",
            "parent_ended": f"The parent {parent!r} has ended or is being cancelled, so it starts no request",
            "too_deep": f"The parent {parent!r} is too deep in its tree, which may have {DEPTH_LIMIT} levels",
            "too_many_children": f"The parent {parent!r} has {CHILDREN_LIMIT:,} children inflight, which is the limit",
        }[reason]


@dataclass(slots=True)
class AdmittedRequest:
    """Give one client its request: a reader, and the handles of its connection and of its response's stream.

    `attached`: the request was admitted for another call. `created_at` is in Unix seconds. `detached` is
    done when Redis knows that this client has gone, which follows the closing of both handles; its result is what
    followed, None when nothing had to be reported or Redis was away.
    """

    rid: str
    created_at: float
    reader: TokenReader
    connection: ConnectionHandle
    stream: ConnectionHandle
    attached: bool
    endpoint: str
    detached: asyncio.Future[Disconnection | None]

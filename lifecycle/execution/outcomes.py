"""Describe how an attempt ended, for Redis and so for the client, and log why."""

from __future__ import annotations

import logging

from lifecycle.errors import EngineError, Unavailable
from lifecycle.execution.failures import location_of, message_of, traceback_of
from lifecycle.store.results import Outcome
from lifecycle.types import ErrorDetail, ErrorType

log = logging.getLogger(__name__)

STREAM_LOST = Outcome("failed", ErrorType.STATE_LOST, "Redis lost a part of the token stream; send the request again")
"""The outcome of a request whose confirmed tokens are gone, for example after a failover."""

END_LOST = Outcome("failed", ErrorType.STATE_LOST, "Redis lost the end of this request, which was told before")
"""The outcome of a request that has ended before and that Redis shows as another start, which must not run again."""

CANCELLED = Outcome("cancelled", ErrorType.CANCELLED, "cancelled")
"""The outcome of a request that was killed, or of a forward that was stopped: a forward has no partial answer."""

NO_ANSWER = Outcome(
    "failed", ErrorType.INTERNAL, "the engine ended without an answer; for this endpoint it must yield exactly one dict"
)
"""The outcome of a forward whose engine has yielded nothing."""


def failure_outcome(rid: str, failure: BaseException) -> Outcome:
    """Return the outcome of an engine that raised, and log where it did."""
    if isinstance(failure, EngineError):
        status = failure.detail.status
        log.warning("the engine refused request %s with status %d: %s", rid, status, location_of(failure))
        return Outcome("failed", failure.error_type, message_of(failure), detail=failure.detail)
    if isinstance(failure, Unavailable):
        log.warning("the engine could not go on with request %s: %s", rid, location_of(failure))
        detail = ErrorDetail(status=503, retry_after_secs=failure.retry_after_secs)
        return Outcome("failed", ErrorType.UNAVAILABLE, message_of(failure), detail=detail)
    log.error("the engine failed for request %s: %s\n%s", rid, location_of(failure), traceback_of(failure))
    return Outcome("failed", ErrorType.INTERNAL, message_of(failure))

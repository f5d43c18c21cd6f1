"""Raise the errors that an application may catch in place of the internal ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lifecycle.errors import (
    ConfigurationConflict,
    Conflict,
    Fenced,
    InvalidSetting,
    InvalidValue,
    LifecycleError,
    Overloaded,
    ParentEnded,
    ParentNotFound,
    StoreError,
    StoreUnavailable,
    Unavailable,
)
from lifecycle.tracking.admission import ParentRefusal, RefusedParent, Rejected

_REJECTIONS: dict[str, tuple[type[Overloaded | Unavailable], str]] = {
    "draining": (Unavailable, "This tracker drains; send the request through another one"),
    "full": (Overloaded, "The queue of this model is full; try again later"),
    "full_bytes": (Overloaded, "The queues hold as many bytes of requests as they may; try again later"),
    "full_model": (Overloaded, "The queue of this model is full; try again later"),
    "queue_limit": (Overloaded, "The owner has as much queued for this model as it may; try again later"),
    "hopeless": (Unavailable, "By the estimate the deadline would pass in the queue; try again later"),
    "limit": (Overloaded, "The owner has reached its limit of inflight requests; try again when one has ended"),
    "contended": (Unavailable, "Other calls with this idempotency key are being admitted; try again later"),
}

_PARENT_REFUSALS: dict[ParentRefusal, type[LifecycleError]] = {
    "no_parent": ParentNotFound,
    "parent_ended": ParentEnded,
    "too_deep": InvalidValue,
    "too_many_children": Overloaded,
}


@contextmanager
def public_errors(rid: str = "") -> Iterator[None]:
    """Translate what the block raises. `rid` is the id of the request that is being admitted.

    An exception group that holds one error of ours, as task groups raise it, becomes that error.
    """
    try:
        yield
    except Exception as failure:
        public = _public(failure, rid)
        if public is failure:
            raise
        raise public from (failure if isinstance(failure, ExceptionGroup) else None)


def _public(failure: Exception, rid: str) -> Exception:
    if isinstance(failure, ExceptionGroup):
        ours = [_public(part, rid) for part in failure.exceptions]
        return ours[0] if isinstance(ours[0], LifecycleError) else failure
    if isinstance(failure, StoreError):
        summary = failure.summary if isinstance(failure, StoreUnavailable) else failure.message
        return Unavailable(summary)
    if isinstance(failure, Fenced):
        return Unavailable(f"{failure.message}; try again soon")
    if isinstance(failure, ConfigurationConflict):
        return InvalidSetting(failure.message)
    if isinstance(failure, Rejected):
        if failure.reason == "exists":
            return Conflict(f"The request id {rid!r} is in use; choose another one, or none")
        if isinstance(failure, RefusedParent):
            return _PARENT_REFUSALS[failure.reason](failure.message)
        kind, message = _REJECTIONS[failure.reason]
        return kind(message, failure.retry_after_secs)
    return failure

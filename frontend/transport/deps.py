"""Give the routes what they depend on: the tracker, the access policy, the caller, and room for another reader."""

from __future__ import annotations

from fastapi import Request

from frontend.auth.policy import AccessPolicy
from frontend.edge.client_shares import ClientShares
from lifecycle.fastapi.caller import ANYBODY, Caller
from lifecycle.fastapi.errors import ApiError
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType


def get_tracker(request: Request) -> Tracker:
    """Return this frontend's tracker."""
    tracker: Tracker = request.scope["app"].state.tracker
    return tracker


def get_access_policy(request: Request) -> AccessPolicy | None:
    """Return the access policy; None when this frontend requires no API keys."""
    policy: AccessPolicy | None = request.app.state.access_policy
    return policy


def get_caller(request: Request) -> Caller:
    """Return the caller that was authorized for this call; `ANYBODY` where no key is required."""
    caller: Caller = request.scope["state"].get("caller", ANYBODY)
    return caller


def get_client_shares(request: Request) -> ClientShares:
    """Return what bounds each client's share of this frontend."""
    shares: ClientShares = request.scope["app"].state.client_shares
    return shares


def check_reader_limit(request: Request, caller: Caller, tracker: Tracker) -> None:
    """Check that this call of the caller may open a stream, and count it until the call ends.

    Raises ApiError: 503 at the limit `LIFECYCLE_MAX_READERS`, 429 at the caller's share of it.
    """
    limit = tracker.settings.max_readers
    if len(tracker.readers) >= limit:
        message = f"This frontend has reached its limit of {limit} open streams; repeat the call later"
        raise ApiError(ErrorType.UNAVAILABLE, message, code="overloaded")
    get_client_shares(request).claim_reader(request.scope, caller)

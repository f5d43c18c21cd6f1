"""What routes find on the application and on the call."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from frontend.auth.api_keys import ANYBODY, Caller
from frontend.auth.policy import Access
from lifecycle.tracking.tracker import Tracker


def get_tracker(request: Request) -> Tracker:
    return cast(Tracker, request.app.state.tracker)


def get_access(request: Request) -> Access | None:
    """None without authentication."""
    return cast("Access | None", request.app.state.access)


def get_caller(request: Request) -> Caller:
    return cast(Caller, request.scope["state"].get("caller", ANYBODY))

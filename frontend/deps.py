"""What routes find on the application."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from lifecycle.tracker import Tracker


def get_tracker(request: Request) -> Tracker:
    return cast(Tracker, request.app.state.tracker)

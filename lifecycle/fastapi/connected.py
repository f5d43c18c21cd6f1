"""Connect a tracker for the lifetime of an application."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from lifecycle.application.tracker import Tracker
from lifecycle.errors import LifecycleError
from lifecycle.fastapi.api_keys import Keyring

Owner: TypeAlias = Callable[[Any], str | Awaitable[str | None] | None]
"""Tells whose a call is, from its `Request`; it may be a coroutine function. None or '' is nobody's."""

_STATE = "lifecycle"


@dataclass(frozen=True, slots=True)
class Connected:
    """Hold what an application has connected."""

    tracker: Tracker
    owner: Owner | None
    keyring: Keyring | None

    @classmethod
    def of(cls, connection: HTTPConnection) -> Connected:
        """Return what the application of a call has connected. Raises LifecycleError when that is nothing."""
        state = connection.scope.get("state") or {}
        found = state.get(_STATE) or getattr(connection.app.state, _STATE, None)
        if not isinstance(found, Connected):
            raise LifecycleError(
                "the tracker is not connected: pass lifespan=lifecycle.fastapi.lifespan to the outermost application, "
                "whose lifespan is the one that runs, or use `async with lifecycle.fastapi.connect(app)` in your own"
            )
        return found


async def owner_of(owner: Owner | None, connection: HTTPConnection) -> str:
    """Return whose a call is; '' for nobody's."""
    if owner is None:
        return ""
    found = owner(connection)
    return (await found if inspect.isawaitable(found) else found) or ""


@asynccontextmanager
async def connect(app: Starlette, *, owner: Owner | None = None, **settings: Any) -> AsyncIterator[Tracker]:
    """Connect a tracker for `app`, inside its own lifespan.

    `app` is the application whose routes use it; for one that is mounted under another, both may be connected, or the
    outer one alone if its lifespan yields `{"lifecycle": app.state.lifecycle}`. `owner` tells whose a call is, from its
    `Request`. `settings` are those of `Tracker.connect`, `endpoint` among them.

    Raises what `Tracker.connect` raises.
    """
    async with Tracker.connect(**settings) as tracker, Keyring.open(tracker.settings) as keyring:
        setattr(app.state, _STATE, Connected(tracker, owner, keyring))
        try:
            yield tracker
        finally:
            delattr(app.state, _STATE)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Connect a tracker for the lifetime of `FastAPI(lifespan=lifecycle.fastapi.lifespan)`.

    The settings are those of `LIFECYCLE_*`; `LIFECYCLE_ENDPOINT` names the endpoint, by default `app`. Applications
    that are mounted under this one use it too. Raises what `Tracker.connect` raises.
    """
    async with connect(app):
        yield {_STATE: getattr(app.state, _STATE)}

"""Serve the product's whole frontend as an ASGI application, under any server."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from lifecycle import own_packages
from lifecycle.clients.arguments import load_settings
from lifecycle.errors import LifecycleError
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.settings import Settings
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.public_errors import public_errors
from lifecycle.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def make_app(settings: Mapping[str, Any]) -> FrontendApp:
    """Return the frontend for the arguments of `lifecycle.fastapi.create_app`. Raises what that raises."""
    own_packages.bind("frontend")
    return FrontendApp(load_settings(settings))


class FrontendApp:
    """Serve HTTP while it runs, which is from its lifespan's startup to the shutdown, or inside `running()`."""

    def __init__(self, settings: Settings) -> None:
        """Use `lifecycle.fastapi.create_app` instead, which makes one."""
        self._settings = settings
        self._app: ASGIApp | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Join the cluster for the time of an `async with`, in place of the lifespan.

        At its end no further request is admitted, and open streams may finish within DRAIN_TIMEOUT_SECS. Raises
        Unavailable, InvalidSetting.
        """
        make = importlib.import_module("frontend.app").create_app
        with public_errors():
            async with AsyncExitStack() as stack:
                keyring = await stack.enter_async_context(Keyring.open(self._settings))
                tracker = await stack.enter_async_context(Tracker.open(self._settings, Metrics(), ""))
                self._app = make(tracker, keyring)
                try:
                    yield
                finally:
                    tracker.draining = True
                    await tracker.announce()
                    await tracker.readers.wait_until_quiet(self._settings.drain_timeout_secs)
                    self._app = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif self._app is None:
            raise LifecycleError(
                "the frontend does not run: let the server run its lifespan (uvicorn --lifespan on), or enter "
                "`async with app.running()` in the lifespan of the application that it is mounted under"
            )
        else:
            await self._app(scope, receive, send)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        """Answer the messages of the lifespan protocol; the startup fails with one line when Redis is away."""
        await receive()
        running = self.running()
        try:
            await running.__aenter__()
        except LifecycleError as failure:
            await send({"type": "lifespan.startup.failed", "message": failure.message})
            return
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            await running.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

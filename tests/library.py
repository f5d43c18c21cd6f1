"""Trackers, sources and processes for the tests of the library."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import lifecycle
from lifecycle.settings import Settings


def given(settings: Settings) -> dict[str, Any]:
    """Return the settings as keyword arguments."""
    return settings.model_dump(exclude_unset=True)


def connect(settings: Settings, **more: Any) -> AbstractAsyncContextManager[lifecycle.Tracker]:
    """Connect a tracker of the endpoint `agent`."""
    return lifecycle.Tracker.connect(**{**given(settings), "endpoint": "agent", **more})


class Source:
    """Counts without an end, until `last` if one is given; tells what it has yielded and whether it was closed."""

    def __init__(self, last: int | None = None, pause_secs: float = 0.0, size: int = 0) -> None:
        self.yielded = 0
        self.closed = asyncio.Event()
        self.go = asyncio.Event()  # set it to let a source with a pause run on
        self._last = last
        self._pause_secs = pause_secs
        self._filler = "x" * size

    async def events(self) -> AsyncIterator[Any]:
        """Yield 1, 2, … or objects of a size."""
        try:
            while self._last is None or self.yielded < self._last:
                self.yielded += 1
                yield {"n": self.yielded, "filler": self._filler} if self._filler else self.yielded
                await asyncio.sleep(self._pause_secs)
        finally:
            self.closed.set()


async def start_python(code: str, *argv: str, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """Start a Python process that runs this code; its output is piped."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *argv, env=env, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )

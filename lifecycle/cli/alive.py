"""A sign of life for whoever runs the process: a file that is touched as long as the event loop turns.

Workers have no port to be probed on, and Redis must not decide: its absence is no reason to restart what still works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lifecycle.errors import LifecycleError

_EVERY_SECS = 2.0


class SignOfLife:
    """The file is touched from `begin()`, which raises LifecycleError if that cannot be done, to `end()`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        try:
            self._touch()
        except OSError as failure:
            raise LifecycleError(f"LIFECYCLE_ALIVE_FILE={self._path}: {failure.strerror or failure}") from None

    def end(self) -> None:
        self._timer.cancel()
        self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        self._path.touch()
        self._timer = self._loop.call_later(_EVERY_SECS, self._touch)


async def while_running(work: Coroutine[Any, Any, None], path: Path) -> None:
    """Awaits `work`, with `path` as its sign of life."""
    sign = SignOfLife(path)
    try:
        sign.begin()
    except LifecycleError:
        work.close()
        raise
    try:
        await work
    finally:
        sign.end()

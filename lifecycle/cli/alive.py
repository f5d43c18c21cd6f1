"""Touch a file while the event loop runs, so that an orchestrator can probe a process that has no port.

While an engine blocks the loop of a worker, the monitor of the loop touches it, up to LIFECYCLE_BLOCKED_LOOP_SECS.
The file does not depend on Redis: an outage of Redis is no reason to restart a process that works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lifecycle.errors import LifecycleError

_LONGEST_INTERVAL_SECS = 2.0


class AliveFile:
    """Touch a file with every heartbeat and at least every two seconds, from `begin()` to `end()`, which removes it.

    `begin()` raises LifecycleError when the file cannot be written.
    """

    def __init__(self, path: Path, heartbeat_secs: float) -> None:
        self._path = path
        self._interval_secs = min(heartbeat_secs, _LONGEST_INTERVAL_SECS)
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        try:
            self._touch()
        except OSError as failure:
            raise LifecycleError(
                f"cannot write LIFECYCLE_ALIVE_FILE={self._path}: {failure.strerror or failure}"
            ) from None

    def end(self) -> None:
        self._timer.cancel()
        self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        self._path.touch()
        self._timer = self._loop.call_later(self._interval_secs, self._touch)


async def while_running(work: Coroutine[Any, Any, None], path: Path, heartbeat_secs: float) -> None:
    """Await `work` while the file at `path` is touched.

    Raises LifecycleError when the file cannot be written; `work` has not started then.
    """
    file = AliveFile(path, heartbeat_secs)
    try:
        file.begin()
    except LifecycleError:
        work.close()
        raise
    try:
        await work
    finally:
        file.end()

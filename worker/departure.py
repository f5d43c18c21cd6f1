"""End the worker's process although its engine does not let it.

Python cannot end a thread, code that blocks the event loop, or a coroutine that swallows its cancellation. The event
loop and the interpreter wait for them at their end, so a process that runs one has to be ended from outside Python.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from typing import NoReturn

from redis.exceptions import RedisError

from lifecycle.errors import StoreError
from lifecycle.execution.worker import Worker
from lifecycle.store.connect import open_store

log = logging.getLogger(__name__)

_BLOCKED_SECS = 1.0  # without a turn of the event loop
_PROCESS_SECS = 6.0  # for a process to end after its worker, which may send its last spans meanwhile
_SHOWN = 10


class Departure:
    """Watch over the end of this process from a daemon thread, and end it with exit code 1 when it is overdue.

    The time for requests to finish is DRAIN_TIMEOUT_SECS. An event loop that is still blocked KILL_GRACE_SECS later
    stays blocked; the thread then leaves the cluster in its place, so that no client waits for the lease to expire.
    Once the worker has ended, its process has six seconds to do so too. Only the owner of a process may begin one.
    """

    def __init__(self, worker: Worker, engine_spec: str) -> None:
        """Prepare the departure of the worker that this thread's event loop runs; `engine_spec` is for the log."""
        self._worker = worker
        self._engine_spec = engine_spec
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, name="departure", daemon=True)
        self._hurried = threading.Event()
        self._worker_ended = False

    def begin(self) -> None:
        """Begin, because the worker drains. A signal's handler may call this at any moment."""
        if not self._thread.is_alive():
            self._thread.start()

    def hurry(self) -> None:
        """Wait for no requests any more."""
        self._hurried.set()

    def worker_ended(self) -> None:
        """Note that the worker has ended, and give its process the time to do so too."""
        self._worker_ended = True
        self.hurry()
        self.begin()

    def _watch(self) -> None:
        settings = self._worker.settings
        self._hurried.wait(settings.drain_timeout_secs + settings.kill_grace_secs)
        while not self._worker_ended:
            if self._is_loop_blocked():
                requests = asyncio.run(self._leave())
                self._exit(f"blocks the event loop, with {_list('request', requests)}")
        threading.Event().wait(settings.kill_grace_secs if self._worker.unended else _PROCESS_SECS)
        self._exit(f"does not end: {', '.join(self._worker.unended[:_SHOWN]) or 'a thread that it has started'}")

    def _is_loop_blocked(self) -> bool:
        """Return whether the event loop makes no turn within a second; wait that long in either case."""
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it is closed
            return False
        threading.Event().wait(_BLOCKED_SECS)
        return not turned.is_set() and not self._worker_ended

    async def _leave(self) -> Sequence[str]:
        """Leave the cluster, if Redis answers soon, and return the requests that the worker has."""
        settings = self._worker.settings
        try:
            async with asyncio.timeout(2 * settings.redis_timeout_secs), open_store(settings) as store:
                await self._worker.leave_through(store)
        except (StoreError, RedisError, TimeoutError) as failure:
            log.warning(
                "the worker could not leave the cluster, so its requests end when its lease expires: %s", failure
            )
        return self._worker.requests

    def _exit(self, why: str) -> NoReturn:
        log.error("the engine %s %s; the process ends without it", self._engine_spec, why)
        logging.shutdown()
        os._exit(1)


def _list(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{what}s {shown}" if names else f"no {what}"

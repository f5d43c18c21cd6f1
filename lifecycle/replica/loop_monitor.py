"""Watch a worker's event loop from a thread, and keep the worker's lease while an engine blocks the loop.

The loop notes the time at every tick, and the thread looks at that note. While the loop is late, the thread renews the
lease over a connection of its own. Time in which the thread did not run either does not count as a blockage: the
process was suspended, and other replicas may have expired it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import FrameType

from redis.exceptions import RedisError

from lifecycle.errors import LifecycleError, StoreError
from lifecycle.replica.lease import Lease
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store

log = logging.getLogger(__name__)

_TICK_SECS = 0.25
_LOGGED_AFTER_SECS = 1.0
_OVERDUE = 1.25  # intervals of a heartbeat, after which the thread renews the lease in the loop's place
_JOIN_SECS = 5.0
_MAX_FRAMES = 20
_ASYNCIO = str(Path(asyncio.__file__).parent)


class LoopMonitor:
    """The monitor of the event loop in which `run()` is awaited."""

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        limit_secs: Callable[[], float],
        on_heartbeat: Callable[[], None] | None = None,
    ) -> None:
        """`lease` is renewed during a blockage, and `limit_secs` returns how long that may last until renewals stop.

        `on_heartbeat` is called once for each interval of a heartbeat during a blockage, up to the same limit. The
        thread calls both.
        """
        self._settings = settings
        self._lease = lease
        self._limit_secs = limit_secs
        self._on_heartbeat = on_heartbeat
        self._tick_secs = min(_TICK_SECS, settings.heartbeat_secs / 4)
        self._ticked_at = 0.0
        self._thread_id = 0  # of the loop's thread

    async def run(self) -> None:
        """Watch until cancelled."""
        self._thread_id = threading.get_ident()
        self._ticked_at = time.monotonic()
        loop = asyncio.new_event_loop()
        watching = loop.create_task(self._watch(), name="loop monitor")
        thread = threading.Thread(target=_run_until_cancelled, args=(loop, watching), name="loop monitor", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(self._tick_secs)
                self._ticked_at = time.monotonic()
        finally:
            with suppress(RuntimeError):  # the thread has ended already
                loop.call_soon_threadsafe(watching.cancel)
            thread.join(_JOIN_SECS)

    # In the thread

    async def _watch(self) -> None:
        """Look at the loop at every tick until cancelled."""
        looked_at = resumed_at = time.monotonic()
        while True:
            await asyncio.sleep(self._tick_secs)
            now = time.monotonic()
            if now - looked_at > self._tick_secs + _LOGGED_AFTER_SECS:
                log.warning(
                    "this process did not run for %.1f seconds: it was suspended, the machine is overloaded, or a "
                    "native extension held the interpreter's lock; no heartbeat could be sent meanwhile",
                    now - looked_at,
                )
                resumed_at = now
            since = max(self._ticked_at, resumed_at)
            if now - since > 2 * self._tick_secs:
                try:
                    await self._during_blockage(since)
                except Exception:
                    log.exception("the monitor of the event loop failed; it continues")
            looked_at = time.monotonic()

    async def _during_blockage(self, since: float) -> None:
        """Renew the lease and call `on_heartbeat` until the loop's next tick, or until the limit."""
        blockage = _Blockage(since, self._thread_id)
        ticked_at, signed_at = self._ticked_at, since
        async with AsyncExitStack() as stack:
            store: Store | None = None
            while self._ticked_at == ticked_at:
                now, lease = time.monotonic(), self._lease
                blockage.report(now, self._limit_secs())
                if now - since < self._limit_secs():
                    if lease.is_announced and lease.age_secs > _OVERDUE * self._settings.heartbeat_secs:
                        if store is None:
                            store = await stack.enter_async_context(open_store(self._settings))
                        await _renew(lease, store)
                    if now - signed_at > self._settings.heartbeat_secs:
                        signed_at = now
                        self._give_sign_of_life()
                await asyncio.sleep(self._tick_secs)
        blockage.report_end(self._ticked_at)

    def _give_sign_of_life(self) -> None:
        if self._on_heartbeat is not None:
            try:
                self._on_heartbeat()
            except OSError as failure:
                log.warning("the sign of life could not be given while the event loop is blocked: %s", failure)


class _Blockage:
    """Log one blockage: its stack once it has lasted for a second, the end of the renewals, and its end."""

    def __init__(self, since: float, thread_id: int) -> None:
        self._since = since
        self._thread_id = thread_id
        self._reported = self._limit_reported = False

    def report(self, now: float, limit_secs: float) -> None:
        lasted_secs = now - self._since
        if lasted_secs >= _LOGGED_AFTER_SECS and not self._reported:
            self._reported = True
            log.warning(
                "the event loop has been blocked for %.1f seconds, and with it every request of this worker; let the "
                "engine await, or run in a thread (run_in_thread, asyncio.to_thread). Blocked in\n%s",
                lasted_secs,
                stack_of(sys._current_frames().get(self._thread_id)),
            )
        if lasted_secs >= limit_secs > 0 and not self._limit_reported:
            self._limit_reported = True
            log.error(
                "the event loop has been blocked for LIFECYCLE_BLOCKED_LOOP_SECS=%g; heartbeats stop, and the worker's "
                "requests end when its lease expires",
                limit_secs,
            )

    def report_end(self, now: float) -> None:
        if self._reported:
            log.warning("the event loop runs again; it was blocked for %.1f seconds", now - self._since)


def stack_of(frame: FrameType | None) -> str:
    """Return the stack above the event loop, outermost frame first: a line `file:line in function` for each.

    It has neither arguments nor other values, because they may quote the prompt. The last 20 frames are shown.
    """
    lines: list[str] = []
    while frame is not None and len(lines) < _MAX_FRAMES:
        code = frame.f_code
        if lines and code.co_filename.startswith(_ASYNCIO):
            break
        lines.append(f"  {code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return "\n".join(reversed(lines)) or "  an unknown place"


async def _renew(lease: Lease, store: Store) -> None:
    """Renew the lease. What goes wrong is the concern of the loop's own next heartbeat."""
    try:
        await lease.renew_through(store)
    except (StoreError, RedisError) as failure:
        log.debug("a heartbeat beside the blocked event loop failed and is repeated: %s", failure)
    except LifecycleError as failure:  # fenced: there is nothing to renew any more
        log.warning("the lease could not be kept while the event loop is blocked: %s", failure)


def _run_until_cancelled(loop: asyncio.AbstractEventLoop, watching: asyncio.Task[None]) -> None:
    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(watching)
    finally:
        loop.close()

"""Know whether a worker's engine can serve, and keep requests away from it while it cannot."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle.aio import tasks
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.engine import Engine
from lifecycle.execution.failures import message_of

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECS = 0.5
_LONGEST_PAUSE_SECS = 10.0
_MESSAGE_CHARS = 1000


class EngineHealth:
    """Watch one engine with its `health()`, and with the requests that it could not serve.

    While the engine is unhealthy, no concurrency slot is free. It is probed after pauses that grow from half a second
    to ten seconds. The probe is its `health()`; an engine without one gets a single request as its probe, and its other
    slots once it has produced an event. Pauses are short again after the first event.
    """

    def __init__(
        self,
        engine: Engine,
        slots: ConcurrencySlots,
        *,
        interval_secs: float,
        timeout_secs: float,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        """Probe a healthy engine every `interval_secs`; a probe fails after `timeout_secs`.

        `announce` tells the cluster about a change at once. It must not raise.
        """
        self.healthy = True
        self.error = ""  # the words of the last failure; empty while the engine is healthy
        self._engine = engine
        self._slots = slots
        self._interval_secs = interval_secs
        self._timeout_secs = timeout_secs
        self._announce = announce
        self._failures = 0  # since the engine last produced an event
        self._due_at = float("inf")  # the next probe, by the loop's clock
        self._changed = asyncio.Event()
        self.probing: asyncio.Task[None] | None = None
        """The probe that is under way, a task that the owner ends after `run`. It may swallow its cancellation."""

    @property
    def _probe(self) -> Callable[[], Awaitable[object]] | None:
        probe: Callable[[], Awaitable[object]] | None = getattr(self._engine, "health", None)
        return probe

    @property
    def probe_in_secs(self) -> float:
        """Return the time until the next probe, in seconds; 0 when it is due or under way."""
        return max(0.0, self._due_at - asyncio.get_running_loop().time())

    def about(self) -> dict[str, Any]:
        """Return what the other replicas need to know of an unhealthy engine; nothing of a healthy one."""
        return {} if self.healthy else {"error": self.error, "probe_in_secs": round(self.probe_in_secs, 3)}

    async def fail(self, message: str) -> None:
        """Note that the engine cannot serve, with words that clients may read, and tell the cluster."""
        self.error = message[:_MESSAGE_CHARS]
        if self.healthy:
            log.warning("the engine cannot serve; the worker takes no new requests until a probe succeeds: %s", message)
            self.healthy = False
            self._slots.restrict(0)
            self._back_off()
            await self._announce()

    def suspect(self) -> None:
        """Probe the engine now, as when it failed in the middle of an answer."""
        if self._probe is not None:
            self._due_at = float("-inf")
            self._changed.set()

    def served(self) -> None:
        """Note that the engine has produced the first event of an attempt."""
        if self._failures and self.healthy:
            self._failures = 0
            self._slots.restrict(None)

    async def run(self) -> None:
        """Probe the engine whenever it is due, until cancelled. The engine must have started.

        A probe that is under way then goes on: see `probing`.
        """
        self.suspect()
        while True:
            await self._wait_until_due()
            failure = await self._run_probe()
            tasks.check_cancelled()
            if failure is None:
                await self._recover()
            elif self.healthy:
                await self.fail(failure)
            else:
                self.error = failure[:_MESSAGE_CHARS]
                self._back_off()

    async def _wait_until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while (wait_secs := self._due_at - loop.time()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if wait_secs == float("inf") else wait_secs):
                    await self._changed.wait()
            except TimeoutError:
                pass  # the probe is due

    async def _run_probe(self) -> str | None:
        """Return the words of the failure, or None when the engine is healthy, as far as it can tell."""
        if self._probe is None:
            return None
        if self.probing is None:
            self.probing = asyncio.create_task(_call(self._probe), name="engine health")
        await asyncio.wait((self.probing,), timeout=self._timeout_secs)
        if not self.probing.done():
            self.probing.cancel()  # if it goes on all the same, the next probe waits for it again
            return f"the engine's health check did not end within {self._timeout_secs:g} seconds"
        probing, self.probing = self.probing, None
        if probing.cancelled():
            return "the engine's health check was cancelled"
        failure = probing.exception()
        return None if failure is None else message_of(failure)

    async def _recover(self) -> None:
        self._due_at = asyncio.get_running_loop().time() + self._interval_secs if self._probe else float("inf")
        if self.healthy:
            return
        self.healthy, self.error = True, ""
        self._slots.restrict(None if self._probe else self._slots.used + 1)
        log.info("the engine can serve again; the worker takes requests")
        await self._announce()

    def _back_off(self) -> None:
        """Set the time of the next probe. The jitter keeps the workers of one upstream apart."""
        pause_secs = min(_LONGEST_PAUSE_SECS, _FIRST_PAUSE_SECS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._due_at = asyncio.get_running_loop().time() + pause_secs * random.uniform(0.8, 1.0)
        self._changed.set()


async def _call(probe: Callable[[], Awaitable[object]]) -> None:
    """Run a probe. SystemExit and KeyboardInterrupt, which would end the event loop, count as a failure of it."""
    try:
        await probe()
    except (SystemExit, KeyboardInterrupt) as failure:
        raise RuntimeError(f"the health check raised {type(failure).__name__}: {message_of(failure)}") from failure

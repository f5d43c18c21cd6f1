"""One attempt: an engine runs, its tokens go out, a cancel ends it, and its end is reported once."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

import orjson

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine, is_resumable
from lifecycle.settings import Settings
from lifecycle.store.results import Ended, Outcome, Refusal, Start
from lifecycle.tokens.writer import TokenSink, TokenWriter
from lifecycle.types import CancelMode, ErrorType

log = logging.getLogger(__name__)

STREAM_LOST = Outcome("failed", ErrorType.STATE_LOST, "Redis lost a part of the token stream; send the request again")
"""The outcome of a request whose confirmed tokens are gone, for example after a failover."""


def _where(failure: BaseException) -> str:
    """For the log: what an exception says may quote the prompt, and stays in the record."""
    frames = traceback.extract_tb(failure.__traceback__)
    return f"{type(failure).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else repr(type(failure))


class Attempt:
    """`run()` returns once the engine has ended and Redis knows; until then its slot is taken."""

    def __init__(
        self, rid: str, start: Start, engine: Engine, writer: TokenWriter, settings: Settings, emitted: list[str]
    ) -> None:
        """`emitted`: the tokens that earlier attempts have left, `start.base` of them."""
        self.rid = rid
        self.attempt = start.attempt
        self.context = EngineContext(rid, start.attempt)
        self.context.emitted = emitted
        self.stuck = False  # killed, and still running
        self.sink: TokenSink = writer.open(rid, start.attempt, start.base, self._on_refused)
        self._body = start.body
        self._engine = engine
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._token_at = self._loop.time()
        self._outcome: Outcome | None = None  # decided before the engine's own end, by a limit
        self._settled: asyncio.Future[None] = self._loop.create_future()  # the engine has ended, or was given up on
        self._abandoned = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def can_move(self) -> bool:
        """Whether another worker can take over from here."""
        return self.sink.number == 0 or is_resumable(self._engine)

    def cancel(self, mode: str) -> None:
        """From a message or a heartbeat; repeats are harmless, and a stop never weakens a kill."""
        if mode == CancelMode.KILL:
            self.context.kill()
        else:
            self.context.stop()

    def fail(self, error_type: ErrorType, message: str) -> None:
        """Give up on the engine: it is reported as failed at once, then killed."""
        if self._outcome is None:
            self._outcome = Outcome("failed", error_type, message)
            self._settle()
        self.context.kill()

    def abandon(self) -> None:
        """The request is no longer ours: end the engine, report nothing."""
        self._abandoned = True
        self.sink.discard()
        self.context.kill()

    async def run(self) -> Ended | None:
        """None when Redis was out of reach for too long: the lease and the reaper then decide."""
        remove_listener = self.context.add_listener(self._on_told)
        self._watch_inactivity()
        self._task = asyncio.create_task(self._generate(), name=f"engine {self.rid}")
        self._task.add_done_callback(self._settle)
        if self.context.is_stopped:
            self._on_told()
        ended: Ended | None = None
        try:
            await self._settled
            if self._outcome is not None and not self._abandoned:
                ended = await self._report(self._outcome)
            if not self._task.done():
                await asyncio.wait((self._task,))
            if ended is None and not self._abandoned:
                ended = await self._report(self._outcome or self._own_end())
            return ended
        finally:
            remove_listener()
            for timer in self._timers.values():
                timer.cancel()
            self.sink.discard()
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.exception()  # of an engine whose end was nobody's concern any more

    async def _generate(self) -> None:
        """The engine's tokens into the sink. A kill cancels this task at the engine's next await."""
        tokens = self._engine(self._request(), self.context)
        sink, clock = self.sink, self._loop.time
        try:
            async for text in tokens:
                if not isinstance(text, str):
                    raise TypeError(f"the engine yielded {type(text).__name__}, not a token's text")
                self._token_at = clock()
                if not sink.put(text):
                    await sink.drained()
            sink.end()
        finally:
            aclose = getattr(tokens, "aclose", None)
            if aclose is not None:
                await aclose()

    def _settle(self, _: object = None) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    def _request(self) -> dict[str, Any]:
        body: dict[str, Any] = orjson.loads(self._body)
        return body

    def _own_end(self) -> Outcome:
        """How the engine ended by itself, or because it was told to."""
        assert self._task is not None
        if self.context.is_killed:
            return Outcome("cancelled", ErrorType.CANCELLED, "cancelled")
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None:
            log.warning("the engine failed on %s: %s", self.rid, _where(failure))
            return Outcome("failed", ErrorType.INTERNAL, str(failure) or type(failure).__name__)
        if self._task.cancelled() and not self.context.is_stopped:
            return Outcome("failed", ErrorType.INTERNAL, "The engine cancelled itself")
        return Outcome("completed", finish_reason=self.context.finish_reason or "stop")

    async def _report(self, outcome: Outcome) -> Ended | None:
        retry_for_secs = 2 * self._settings.lease_secs
        try:
            ended = await self.sink.finish(outcome, self.context.input_tokens, retry_for_secs)
            if ended.what == "incomplete":
                # Redis has confirmed tokens and lost them since, in a failover; nobody may splice over the gap.
                ended = await self.sink.finish(STREAM_LOST, self.context.input_tokens, retry_for_secs)
        except StoreUnavailable as failure:
            log.error("the end of %s could not be reported: %s", self.rid, failure)
            return None
        return ended

    def _on_told(self) -> None:
        """The context was stopped or killed."""
        if self._task is None or self._task.done():
            return
        if self.context.is_killed:
            self._task.cancel()
            self._later("kill", self._settings.kill_grace_secs, self._on_stuck)
        else:
            self._later("stop", self._settings.stop_grace_secs, self._end_stopped)

    def _end_stopped(self) -> None:
        if self._task is not None and not self._task.done():
            log.info("the engine did not stop %s by itself", self.rid)
            self._task.cancel()
            self._later("kill", self._settings.kill_grace_secs, self._on_stuck)

    def _on_stuck(self) -> None:
        if self._task is not None and not self._task.done():
            self.stuck = True
            log.error("the engine does not end %s although it was killed; its slot stays taken", self.rid)

    def _on_refused(self, why: Refusal) -> None:
        """The request is over, killed, or another worker's: nothing more may be written."""
        log.info("tokens of %s were refused: %s", self.rid, why)
        self.sink.discard()
        if why == "gone":
            self.fail(ErrorType.STATE_LOST, "Redis lost the token stream")
        self.context.kill()

    def _watch_inactivity(self) -> None:
        """At once the configured silence; re-armed lazily, so that a token costs no timer."""
        limit_secs = self._settings.worker_inactivity_secs
        if limit_secs <= 0:
            return
        left = self._token_at + limit_secs - self._loop.time()
        if left > 0:
            self._later("inactivity", left, self._watch_inactivity)
        elif not self.context.is_killed:
            self.fail(
                ErrorType.RESPONSE_TIMEOUT, f"The engine was silent for {limit_secs:g} seconds (response timeout)"
            )

    def _later(self, name: str, delay_secs: float, callback: Callable[[], None]) -> None:
        previous = self._timers.get(name)
        if previous is not None:
            previous.cancel()
        self._timers[name] = self._loop.call_later(delay_secs, callback)

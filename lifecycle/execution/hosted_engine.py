"""Host the engine of one worker, from its import to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any, Self

from lifecycle.aio import tasks
from lifecycle.errors import LifecycleError
from lifecycle.execution.context import EngineContext
from lifecycle.execution.declarations import check_declarations
from lifecycle.execution.engine import Engine, EngineLoadError, aclose
from lifecycle.execution.failures import location_of, message_of
from lifecycle.execution.threaded import DaemonThread, as_async
from lifecycle.settings import SettingsError
from lifecycle.types import Event

log = logging.getLogger(__name__)


class EngineStartError(LifecycleError):
    """Raised when an engine's `startup()` has failed. The message is one line."""


class StartupInterrupted(BaseException):
    """Raised inside an engine's `startup()`, which may block the event loop, by a signal that ends the worker."""


class HostedEngine:
    """An engine that may not be loaded yet. Once `start()` has returned, it is used as the engine itself.

    The engine's attributes are visible as attributes of this object; there are none before it is loaded.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        """Prepare an engine that `load` returns. `load` is called once, in a thread, as an import may take long."""
        self._load = load
        self._engine: Engine | None = None
        self._startup_began = False

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Host an engine that is loaded already. Raise EngineLoadError when its declarations are not valid."""
        hosted = cls(lambda: engine)
        hosted._engine = _checked(engine)
        return hosted

    def __getattr__(self, name: str) -> Any:
        engine = self.__dict__.get("_engine")
        if engine is None:
            raise AttributeError(name)
        return getattr(engine, name)

    def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        assert self._engine is not None
        return self._engine(request, context)

    async def load(self) -> None:
        """Import the engine, unless that is done, in a thread that does not hold the end of the process.

        Raise EngineLoadError when it cannot be imported or its declarations are not valid.
        """
        if self._engine is not None:
            return
        thread = DaemonThread("engine import")
        try:
            self._engine = _checked(await thread.submit(self._load))
        except SettingsError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as failure:
            raise EngineLoadError(f"the engine cannot be loaded: {_described(failure)}") from failure
        finally:
            thread.end()

    async def start(self) -> None:
        """Import the engine and await its `startup()`, if it has one.

        Raise EngineLoadError as `load` does, and EngineStartError when `startup()` raises.
        """
        await self.load()
        if getattr(self._engine, "startup", None) is None:
            return
        self._startup_began = True
        try:
            await self._startup()
        except StartupInterrupted:
            raise asyncio.CancelledError from None
        except asyncio.CancelledError as failure:
            tasks.check_cancelled()
            raise EngineStartError("the engine's startup() failed: it raised CancelledError by itself") from failure
        except (Exception, SystemExit, KeyboardInterrupt) as failure:
            raise EngineStartError(f"the engine's startup() failed: {_described(failure)}") from failure

    async def _startup(self) -> None:
        await self.startup()  # the engine's own

    async def aclose(self) -> None:
        """Await the engine's `aclose()`, if it has one; not if its `startup()` has never begun.

        Raise whatever it raises.
        """
        engine = self._engine
        if engine is not None and (self._startup_began or getattr(engine, "startup", None) is None):
            await aclose(engine)


def interrupt_startup(frame: FrameType | None) -> None:
    """Raise StartupInterrupted if `frame`, which a signal has interrupted, is inside an engine's `startup()`.

    A signal's handler calls it last. Code that blocks the event loop cannot be cancelled in another way.
    """
    while frame is not None:
        if frame.f_code is HostedEngine._startup.__code__:
            raise StartupInterrupted
        frame = frame.f_back


def _described(failure: BaseException) -> str:
    """Return the exception's type, its place and the first line of its message."""
    return f"{location_of(failure)}: {next(iter(message_of(failure).splitlines()), '')}"


def _checked(engine: Engine) -> Engine:
    check_declarations(engine)
    return as_async(engine)

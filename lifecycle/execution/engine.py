"""What an engine is to its worker: one async generator per attempt, text out, a context to talk through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from lifecycle.errors import LifecycleError
from lifecycle.execution.context import EngineContext
from lifecycle.settings import SettingsError

Engine = Callable[[dict[str, Any], EngineContext], AsyncIterator[str]]
"""`async def generate(request, context)`: takes the OpenAI body, yields the text of one token after the other.

It should end soon after `context.stopped()`; on kill it is cancelled at its next await. What it raises fails the
request, with `str()` of the exception as the message.
"""


def is_resumable(engine: Engine) -> bool:
    """Whether it says of itself, by `resumable = True`, that it goes on behind `context.emitted`.

    Then a request whose worker dies in the middle is tried again by another, and its client sees one answer.
    """
    return getattr(engine, "resumable", False) is True


class EngineError(LifecycleError):
    """Raised when an engine cannot answer. The message is what the client reads."""


class EngineLoadError(SettingsError):
    """Raised when an engine cannot be found or is none. The message is one line that says what to do."""


async def close_engine(engine: Engine) -> None:
    """Release what the engine holds between requests, by its `aclose()` if it has one."""
    aclose = getattr(engine, "aclose", None)
    if aclose is not None:
        await aclose()

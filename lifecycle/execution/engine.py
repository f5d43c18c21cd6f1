"""Define the interface between a worker and its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.settings import SettingsError

Engine = Callable[[dict[str, Any], EngineContext], AsyncIterator[str]]
"""An async generator function, `async def generate(request, context)`, that the worker calls once per attempt.

It takes the body of the OpenAI call as a dict, and yields the text of one token after the other. It should end soon
after `context.stopped()` returns; on a kill it is cancelled at its next await. An exception that it raises fails the
request, with `str()` of the exception as the message.
"""


def is_resumable(engine: Engine) -> bool:
    """Return whether the engine declares, by `resumable = True`, that it continues behind `context.emitted`.

    If its worker dies, another worker then tries the request again, and the client receives one uninterrupted text.
    """
    return getattr(engine, "resumable", False) is True


class EngineLoadError(SettingsError):
    """Raised when an engine cannot be found or used. The message is one line that says what to do."""


async def close_engine(engine: Engine) -> None:
    """Release what the engine holds between requests, by its `aclose()` if it has one.

    Raise whatever the engine's `aclose()` raises.
    """
    aclose = getattr(engine, "aclose", None)
    if aclose is not None:
        await aclose()

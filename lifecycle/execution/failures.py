"""Describe the exception that an engine raised, for the client and for the log."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

_MAX_FRAMES = 20


class EngineExit(Exception):
    """Raised in place of an engine's SystemExit or KeyboardInterrupt, which would end the worker's event loop."""


def message_of(failure: BaseException) -> str:
    """Return the exception's own words, or its type when it has none."""
    try:
        return str(failure) or type(failure).__name__
    except Exception:
        return type(failure).__name__


def location_of(failure: BaseException) -> str:
    """Return an exception's type and where it was raised, for the log. Its message may quote the prompt."""
    frames = traceback.extract_tb(failure.__traceback__)
    return f"{type(failure).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else repr(type(failure))


def traceback_of(failure: BaseException) -> str:
    """Return the frames and types of an exception and its causes, for the log.

    Messages and local variables are left out, because they may quote the prompt. The last 20 frames are shown.
    """
    return "caused by:\n".join(
        "".join(traceback.format_tb(part.__traceback__, limit=-_MAX_FRAMES)) + f"{_type_name(part)}\n"
        for part in _chain(failure)
    ).rstrip()


def _type_name(failure: BaseException) -> str:
    kind = type(failure)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(failure, BaseExceptionGroup):
        return f"{name} of {', '.join(_type_name(part) for part in failure.exceptions)}"
    return name


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, one after the other, the exceptions that caused it."""
    seen: set[int] = set()
    current: BaseException | None = failure
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)

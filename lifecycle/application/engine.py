"""Declare an engine by a decorator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from lifecycle.errors import InvalidSetting
from lifecycle.execution.declarations import ATTRIBUTES, as_engine

EngineT = TypeVar("EngineT", bound=Callable[..., Any])


@overload
def engine(function: EngineT, /) -> EngineT: ...
@overload
def engine(
    *,
    accepts: bool | Collection[str] | None = None,
    endpoints: Collection[str] | None = None,
    resumable: bool | None = None,
    concurrency: int | None = None,
    max_model_len: int | Mapping[str, int] | None = None,
    startup: Callable[[], Awaitable[None]] | None = None,
    health: Callable[[], Awaitable[None]] | None = None,
    waiting: Callable[[], Awaitable[int | None]] | None = None,
    aclose: Callable[[], Awaitable[None]] | None = None,
    run_in_thread: bool | None = None,
) -> Callable[[EngineT], EngineT]: ...
def engine(function: EngineT | None = None, /, **declared: Any) -> EngineT | Callable[[EngineT], EngineT]:
    """Declare an engine: `async def generate(request, context)`, which yields text as str or chunks as dict.

    Use it bare or with what the engine declares: `accepts` are the names of parameters that it takes, or True for all;
    `endpoints` the names of those that it serves; `resumable=True` that it continues behind `context.emitted`;
    `concurrency` how many requests a worker runs at a time; `max_model_len` how many tokens a prompt and its answer may
    have; `startup`, `health`, `waiting` and `aclose` are async functions without arguments, of which `waiting` returns
    how many requests the engine holds back; `run_in_thread=True` belongs to a synchronous generator function.

    The function is returned as it is, with these attributes. Raises InvalidSetting when it cannot be an engine, or
    when an engine declares nothing of that name.
    """
    for name in declared:
        if name not in ATTRIBUTES:
            raise InvalidSetting(f"an engine does not declare {name!r}; it may declare {', '.join(ATTRIBUTES)}")

    def declare(function: EngineT) -> EngineT:
        for name, value in declared.items():
            if value is not None:
                setattr(function, name, value)
        as_engine(f"the engine {getattr(function, '__name__', function)!r}", function)
        return function

    return declare if function is None else declare(function)

"""Check what an engine declares by its attributes, before its worker takes any request."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

from lifecycle.execution.engine import Engine, EngineLoadError, accepted_parameters, check_max_model_len
from lifecycle.execution.offered_endpoints import offered_endpoints

METHODS = ("startup", "health", "waiting", "aclose")
"""The optional async functions of an engine, which take no arguments."""

ATTRIBUTES = ("accepts", "endpoints", "resumable", "concurrency", "max_model_len", "run_in_thread", *METHODS)
"""Name what an engine may declare."""

_CONCURRENCY_LIMIT = 100_000


def as_engine(named: str, found: Any) -> Engine:
    """Return `found`, which errors call `named`.

    Raise EngineLoadError when its type, its signature or a declaration shows that it cannot be an engine.
    """
    wanted = "name an async generator function: async def generate(request, context): ... yield text"
    if isinstance(found, type) or not callable(found):
        raise EngineLoadError(f"{named} is {_kind(found)}; {wanted}")
    # An instance whose `__call__` is an async generator is accepted like a function, and so is a plain callable that
    # returns an async iterator.
    function = found if inspect.isroutine(found) or isinstance(found, functools.partial) else found.__call__
    if inspect.iscoroutinefunction(function):
        raise EngineLoadError(f"{named} is a coroutine function, which never yields; {wanted}")
    in_thread = getattr(found, "run_in_thread", False) is True
    if in_thread and inspect.isasyncgenfunction(function):
        raise EngineLoadError(f"{named} is asynchronous and has run_in_thread; remove one of the two")
    if inspect.isgeneratorfunction(function) and not in_thread:
        raise EngineLoadError(
            f"{named} is a synchronous generator function; write async def, or set its run_in_thread = True"
        )
    try:
        inspect.signature(function).bind({}, None)
    except (TypeError, ValueError):
        raise EngineLoadError(f"{named} does not take (request, context); {wanted}") from None
    check_declarations(found)
    return cast(Engine, found)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def check_declarations(engine: Engine) -> None:
    """Raise EngineLoadError, with one line that names the attribute, when one of the declarations is not valid."""
    accepted_parameters(engine)
    check_max_model_len(engine)
    offered_endpoints(engine)
    declared_concurrency(engine)
    for name in METHODS:
        _check_method(engine, name)


def declared_concurrency(engine: Engine) -> int | None:
    """Return the engine's `concurrency`, the most requests that it runs at a time; None when it declares none.

    Raise EngineLoadError when it is no whole number from 1 to 100,000.
    """
    declared: object = getattr(engine, "concurrency", None)
    if declared is None:
        return None
    if not isinstance(declared, int) or isinstance(declared, bool) or not 1 <= declared <= _CONCURRENCY_LIMIT:
        raise EngineLoadError(
            f"the engine's attribute concurrency is {declared!r:.50}; "
            f"it must be a whole number from 1 to {_CONCURRENCY_LIMIT}"
        )
    return declared


def _check_method(engine: Engine, name: str) -> None:
    method: Any = getattr(engine, name, None)
    if method is None:
        return
    wanted = f"write async def {name}()"
    if not callable(method):
        raise EngineLoadError(f"the engine's attribute {name} is of type {type(method).__name__}; {wanted}")
    function = method if inspect.isroutine(method) or isinstance(method, functools.partial) else method.__call__
    if not inspect.iscoroutinefunction(function):
        raise EngineLoadError(f"the engine's {name} is not asynchronous; {wanted}")
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        raise EngineLoadError(f"the engine's {name} takes arguments; {wanted}") from None

"""Read what an engine declares by its attributes, and check it before its worker takes any request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

from lifecycle.execution.engine import GATED_PARAMETERS, Engine, EngineLoadError
from lifecycle.execution.offered_endpoints import offered_endpoints
from lifecycle.store.worker_roster import EVERYTHING

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


def is_resumable(engine: Engine) -> bool:
    """Return whether the engine declares, by `resumable = True`, that it continues behind `context.emitted`.

    If its worker dies, another worker then tries the request again, and the client receives one uninterrupted text.
    """
    return getattr(engine, "resumable", False) is True


def accepted_parameters(engine: Engine) -> list[str]:
    """Return the gated parameters that the engine declares to take, sorted; `["*"]` stands for all of them.

    Raise EngineLoadError when its `accepts` is neither True nor a collection of names in GATED_PARAMETERS.
    """
    declared: object = getattr(engine, "accepts", ())
    if declared is True:
        return [EVERYTHING]
    if declared == ():
        return []
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise EngineLoadError(
            f"the engine's attribute accepts is {declared!r:.50}; it must be True or a collection of parameter names"
        )
    unknown = sorted(repr(name) for name in declared if name not in GATED_PARAMETERS)
    if unknown:
        raise EngineLoadError(
            f"the engine's attribute accepts names {', '.join(unknown)}; "
            f"it may name these: {', '.join(sorted(GATED_PARAMETERS))}"
        )
    return sorted(set(declared))


def max_model_lens(engine: Engine, models: Iterable[str]) -> dict[str, int]:
    """Return the `max_model_len` that the engine declares, in tokens, for each of `models` that has one."""
    declared: object = getattr(engine, "max_model_len", None)
    found = {name: declared.get(name) if isinstance(declared, Mapping) else declared for name in models}
    return {name: length for name, length in found.items() if type(length) is int and length > 0}


def check_max_model_len(engine: Engine) -> None:
    """Raise EngineLoadError when the engine declares a `max_model_len` that is none."""
    declared: object = getattr(engine, "max_model_len", None)
    lengths = list(declared.values()) if isinstance(declared, Mapping) else [declared]
    for length in lengths:
        if length is not None and not (type(length) is int and length > 0):
            raise EngineLoadError(
                f"the engine's attribute max_model_len is {length!r:.50}; it must be a positive int, a number of tokens"
            )


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

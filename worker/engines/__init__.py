"""Load an engine by its name: `echo`, `openai`, or one of a user's module or file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from lifecycle.errors import EngineError
from lifecycle.execution.declarations import check_declarations
from lifecycle.execution.engine import Engine, EngineLoadError, close_engine
from lifecycle.settings import Settings
from worker.engines.echo import EchoEngine
from worker.engines.user_module import UserModule

__all__ = ["Engine", "EngineError", "EngineLoadError", "close_engine", "find_engine", "load_engine"]


def load_engine(spec: str, settings: Settings) -> Engine:
    """Return the engine that `spec` names. Raise EngineLoadError as `find_engine` and its result do."""
    return find_engine(spec, settings)()


def find_engine(spec: str, settings: Settings) -> Callable[[], Engine]:
    """Return a function that loads the engine which `spec` names; importing a user's module may take long.

    `spec` is `echo`, `openai`, `module:function` or `path/to/file.py:function`; the part behind the colon may be a
    dotted path. Raise EngineLoadError, with one line that says what to do, when there is no such engine, and from the
    function when it cannot be imported or used.
    """
    if spec == "echo":
        return partial(_same, EchoEngine(settings.echo_tokens_per_sec))
    if spec == "openai":
        from worker.engines.openai import OpenAIEngine  # importing its HTTP client takes a tenth of a second

        engine = OpenAIEngine(settings.openai_base_url, settings.openai_api_key, settings.max_output_bytes)
        return partial(_same, engine)
    module = UserModule(spec)
    return lambda: _as_engine(spec, module.load())


def _same(engine: Engine) -> Engine:
    return engine


def _as_engine(spec: str, found: Any) -> Engine:
    """Return `found`. Raise EngineLoadError when its type or signature shows that it cannot be an engine."""
    wanted = "name an async generator function: async def generate(request, context): ... yield text"
    if isinstance(found, type) or not callable(found):
        raise EngineLoadError(f"engine {spec!r} is {_kind(found)}; {wanted}")
    # An instance whose `__call__` is an async generator is accepted like a function, and so is a plain callable that
    # returns an async iterator.
    function = found if inspect.isroutine(found) or isinstance(found, partial) else found.__call__
    if inspect.iscoroutinefunction(function):
        raise EngineLoadError(f"engine {spec!r} is a coroutine function, which never yields; {wanted}")
    in_thread = getattr(found, "run_in_thread", False) is True
    if in_thread and inspect.isasyncgenfunction(function):
        raise EngineLoadError(f"engine {spec!r} is asynchronous and has run_in_thread; remove one of the two")
    if inspect.isgeneratorfunction(function) and not in_thread:
        raise EngineLoadError(
            f"engine {spec!r} is a synchronous generator function; write async def, or set its run_in_thread = True"
        )
    try:
        inspect.signature(function).bind({}, None)
    except (TypeError, ValueError):
        raise EngineLoadError(f"engine {spec!r} does not take (request, context); {wanted}") from None
    check_declarations(found)
    return cast(Engine, found)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"

"""Load an engine by its name: `echo`, `openai`, or `module:function` from anywhere Python can import."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any, cast

from lifecycle.errors import EngineError
from lifecycle.execution.engine import Engine, EngineLoadError, accepted_parameters, close_engine
from lifecycle.settings import Settings
from worker.engines.echo import EchoEngine

__all__ = ["Engine", "EngineError", "EngineLoadError", "close_engine", "load_engine"]


def load_engine(spec: str, settings: Settings) -> Engine:
    """Return the engine that `spec` names.

    The part behind the colon may be a dotted path (`module:holder.function`). Modules in the current directory are
    found too. Raise EngineLoadError, with one line that says what to do, when there is no such engine.
    """
    if spec == "echo":
        return EchoEngine(settings.echo_tokens_per_sec)
    if spec == "openai":
        from worker.engines.openai import OpenAIEngine  # importing its HTTP client takes a tenth of a second

        return OpenAIEngine(settings.openai_base_url, settings.openai_api_key, settings.max_output_bytes)
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise EngineLoadError(f"engine {spec!r} is unknown: use echo, openai or module:function")
    return _as_engine(spec, _attribute(spec, _import(spec, module), attribute))


def _import(spec: str, name: str) -> ModuleType:
    """Import the module `name`. Raise EngineLoadError when it does not exist or its import fails."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as failure:
        missing = failure.name if isinstance(failure, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise EngineLoadError(
                f"engine {spec!r}: there is no module {missing!r}; start in its directory, or add that to PYTHONPATH"
            ) from None
        reason = next(iter(str(failure).splitlines()), "")
        raise EngineLoadError(
            f"engine {spec!r}: module {name!r} cannot be imported; fix this first: {type(failure).__name__}: {reason}"
        ) from failure


def _attribute(spec: str, module: ModuleType, path: str) -> Any:
    """Return the attribute of `module` at the dotted `path`. Raise EngineLoadError when there is none."""
    try:
        return functools.reduce(getattr, path.split("."), cast(Any, module))
    except AttributeError:
        raise EngineLoadError(
            f"engine {spec!r}: module {module.__name__!r} has no {path!r}; check the spelling"
        ) from None


def _as_engine(spec: str, found: Any) -> Engine:
    """Return `found`. Raise EngineLoadError when its type or signature shows that it cannot be an engine."""
    wanted = "name an async generator function: async def generate(request, context): ... yield text"
    if isinstance(found, type) or not callable(found):
        raise EngineLoadError(f"engine {spec!r} is {_kind(found)}; {wanted}")
    # An instance whose `__call__` is an async generator is accepted like a function, and so is a plain callable that
    # returns an async iterator.
    function = found if inspect.isroutine(found) or isinstance(found, functools.partial) else found.__call__
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
    accepted_parameters(found)
    return cast(Engine, found)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"

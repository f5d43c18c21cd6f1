"""Finding an engine by its name: `echo`, `openai`, or `module:function` from anywhere Python can import."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any, cast

from lifecycle.execution.engine import Engine, EngineError, EngineLoadError, close_engine
from lifecycle.settings import Settings
from worker.engines.echo import EchoEngine

__all__ = ["Engine", "EngineError", "EngineLoadError", "close_engine", "load_engine"]


def load_engine(spec: str, settings: Settings) -> Engine:
    """The engine that `spec` names; a dotted attribute (`module:holder.function`) is followed.

    Modules in the current directory can be named. Raises EngineLoadError with one line that says what to do.
    """
    if spec == "echo":
        return EchoEngine(settings.echo_tokens_per_sec)
    if spec == "openai":
        from worker.engines.openai import OpenAIEngine  # its HTTP client costs a tenth of a second to import

        return OpenAIEngine(settings.openai_base_url, settings.openai_api_key)
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise EngineLoadError(f"unknown engine {spec!r}: use echo, openai or module:function")
    return _as_engine(spec, _attribute(spec, _import(spec, module), attribute))


def _import(spec: str, name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as failure:
        missing = failure.name if isinstance(failure, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise EngineLoadError(
                f"engine {spec!r}: no module {missing!r}; run in its directory, or put that on PYTHONPATH"
            ) from None
        reason = next(iter(str(failure).splitlines()), "")
        raise EngineLoadError(
            f"engine {spec!r}: importing {name!r} failed, fix it first: {type(failure).__name__}: {reason}"
        ) from failure


def _attribute(spec: str, module: ModuleType, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), cast(Any, module))
    except AttributeError:
        raise EngineLoadError(f"engine {spec!r}: {module.__name__!r} has no {path!r}; check the spelling") from None


def _as_engine(spec: str, found: Any) -> Engine:
    """`found`, unless it is plain without calling it that it cannot be an engine."""
    wanted = "name an async generator function: async def generate(request, context): ... yield text"
    if isinstance(found, type) or not callable(found):
        raise EngineLoadError(f"engine {spec!r} is {_kind(found)}; {wanted}")
    # An instance with an async generator `__call__` is as good as a function, and so is
    # a plain callable that returns an async iterator.
    function = found if inspect.isroutine(found) or isinstance(found, functools.partial) else found.__call__
    if inspect.iscoroutinefunction(function):
        raise EngineLoadError(f"engine {spec!r} never yields; {wanted}")
    try:
        inspect.signature(function).bind({}, None)
    except (TypeError, ValueError):
        raise EngineLoadError(f"engine {spec!r} does not take (request, context); {wanted}") from None
    return cast(Engine, found)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"

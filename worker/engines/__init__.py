"""Load an engine by its name: `echo`, `openai`, or one of a user's module or file."""

from __future__ import annotations

from collections.abc import Callable

from lifecycle.execution.declarations import as_engine
from lifecycle.execution.engine import Engine
from lifecycle.settings import Settings
from worker.engines.echo import EchoEngine
from worker.engines.user_module import UserModule


def find_engine(spec: str, settings: Settings) -> Callable[[], Engine]:
    """Return a function that loads the engine which `spec` names; importing a user's module may take long.

    `spec` is `echo`, `openai`, `module:function` or `path/to/file.py:function`; the part behind the colon may be a
    dotted path. Raise EngineLoadError, with one line that says what to do, when there is no such engine, and from the
    function when it cannot be imported or used.
    """
    if spec == "echo":
        echo = EchoEngine(settings.echo_tokens_per_sec)
        return lambda: echo
    if spec == "openai":
        from worker.engines.openai import OpenAIEngine  # importing its HTTP client takes a tenth of a second

        openai = OpenAIEngine(settings.openai_base_url, settings.openai_api_key, settings.max_output_bytes)
        return lambda: openai
    module = UserModule(spec)
    return lambda: as_engine(f"engine {spec!r}", module.load())

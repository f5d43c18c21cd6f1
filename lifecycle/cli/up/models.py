"""Choose the names of the models that `up` serves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from lifecycle.settings import Settings, check_model_names


def choose_models(given: Sequence[str], engine: str, settings: Settings) -> tuple[str, ...]:
    """Return the models that are `given`; without any those that the openai engine's upstream lists, or `echo`.

    Raises SettingsError for a malformed name, an engine that is not there, or a wrong URL of the upstream, and
    LifecycleError when it lists no models.
    """
    _check_engine(engine, settings)
    check_model_names(given)
    if given:
        return tuple(dict.fromkeys(given))
    return asyncio.run(_listed(settings)) if engine == "openai" else ("echo",)


def _check_engine(engine: str, settings: Settings) -> None:
    """Raise SettingsError for an engine that is not there: each worker would say so, after everything has been started.

    A worker looks for modules in the current directory first. What this process has still to import is not there.
    """
    from worker.engines import find_engine

    path = sys.path.copy()
    try:
        find_engine(engine, settings)
    finally:
        sys.path[:] = path


async def _listed(settings: Settings) -> tuple[str, ...]:
    from worker.engines.openai import OpenAIEngine

    engine = OpenAIEngine(settings.openai_base_url, settings.openai_api_key)
    try:
        return tuple(dict.fromkeys(await engine.models()))
    finally:
        await engine.aclose()

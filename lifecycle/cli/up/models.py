"""Choose the names of the models that `up` serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lifecycle.settings import Settings, SettingsError


def choose_models(given: Sequence[str], engine: str, settings: Settings) -> tuple[str, ...]:
    """Return the models that are `given`; without any those that the openai engine's upstream lists, or `echo`.

    Raises SettingsError for an empty name, an engine that is not there, or a wrong URL of the upstream, and
    LifecycleError when it lists no models.
    """
    from worker.engines import find_engine

    find_engine(engine, settings)  # each worker would say the same, after everything has been started
    if any(not model.strip() for model in given):
        raise SettingsError("--model is empty: pass the name of the model, as clients request it")
    if given:
        return tuple(dict.fromkeys(given))
    return asyncio.run(_listed(settings)) if engine == "openai" else ("echo",)


async def _listed(settings: Settings) -> tuple[str, ...]:
    from worker.engines.openai import OpenAIEngine

    engine = OpenAIEngine(settings.openai_base_url, settings.openai_api_key)
    try:
        return tuple(dict.fromkeys(await engine.models()))
    finally:
        await engine.aclose()

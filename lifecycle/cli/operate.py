"""Connect operators' commands straight to Redis, with the settings that the cluster's replicas share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lifecycle.settings import Settings, SettingsError, environment_name
from lifecycle.store.common_settings import as_text
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store


def operate(settings: Settings, work: Callable[[Store], Awaitable[int]]) -> int:
    """Run `work` with a Store of the cluster and return its result as the exit code.

    Raises StoreUnavailable when Redis is out of reach, and SettingsError as `open_cluster` does.
    """

    async def run() -> int:
        async with open_cluster(settings) as store:
            return await work(store)

    return asyncio.run(run())


@asynccontextmanager
async def open_cluster(settings: Settings) -> AsyncIterator[Store]:
    """Open a Store with the settings that the cluster's replicas share, instead of this shell's defaults.

    Raises SettingsError when an explicitly given setting differs, since answers would silently be wrong.
    """
    async with open_store(settings) as store:
        theirs = await store.configuration()
    for name, value in theirs.items():
        ours = getattr(settings, name)
        if name in settings.model_fields_set and ours != value:
            raise SettingsError(
                f"{environment_name(name)}={as_text(ours)} differs from {as_text(value)}, which the replicas of "
                f"namespace {settings.namespace!r} use: omit the setting to use theirs"
            )
    async with open_store(settings.model_copy(update=theirs)) as store:
        yield store

"""How operators' commands reach the cluster: straight to its Redis, on the cluster's own terms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lifecycle.settings import Settings, SettingsError, environment_name
from lifecycle.store.connect import open_store
from lifecycle.store.scripts import Store

_COMMON = {"shards": int, "lease_secs": float}


def operate(settings: Settings, work: Callable[[Store], Awaitable[int]]) -> int:
    """Runs `work` with a store of the cluster; its result is the exit code. Raises StoreUnavailable."""

    async def run() -> int:
        async with open_cluster(settings) as store:
            return await work(store)

    return asyncio.run(run())


@asynccontextmanager
async def open_cluster(settings: Settings) -> AsyncIterator[Store]:
    """A store with the settings that the cluster's replicas have in common, whatever this shell's defaults are.

    Raises SettingsError when one was given that differs: the answers would be wrong in silence.
    """
    async with open_store(settings) as store:
        theirs = await _common_settings(store)
    for name, value in theirs.items():
        ours = getattr(settings, name)
        if name in settings.model_fields_set and ours != value:
            raise SettingsError(
                f"{environment_name(name)}={ours:g} differs from {value:g}, with which the replicas of namespace "
                f"{settings.namespace!r} run: leave it away to use theirs"
            )
    async with open_store(settings.model_copy(update=theirs)) as store:
        yield store


async def _common_settings(store: Store) -> dict[str, int | float]:
    names = list(_COMMON)
    values = await store.command("HMGET", store.keys.control + "config", *names)
    return {name: _COMMON[name](value) for name, value in zip(names, values, strict=True) if value is not None}

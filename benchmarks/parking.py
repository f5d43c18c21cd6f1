"""Inflight requests that no worker takes, made in Redis: a cluster with a long queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lifecycle.aio import tasks
from lifecycle.ids import new_nonce, new_replica_id, new_request_id
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, Labels, OnDisconnect, RequestType, Role
from tests.admitting import admit
from tests.joining import join, leave

_LABELS = Labels("parked", Endpoint.CHAT_COMPLETIONS, RequestType.STREAM)  # a model that nobody has ever served
_TOGETHER = 500


@asynccontextmanager
async def parked(settings: Settings, count: int) -> AsyncIterator[None]:
    """Queue `count` requests of a frontend that exists in Redis only and is expired when the block ends."""
    async with open_store(settings) as store:
        frontend = new_replica_id(Role.FRONTEND)
        await join(store, frontend, Role.FRONTEND, {}, [])
        heartbeats = asyncio.create_task(_heartbeat(store, frontend))
        try:
            for start in range(0, count, _TOGETHER):
                await asyncio.gather(*(_admit(store, frontend) for _ in range(min(_TOGETHER, count - start))))
            yield
        finally:
            await tasks.end((heartbeats,))
            await leave(store, frontend, Role.FRONTEND)


async def _admit(store: Store, frontend: str) -> None:
    rid = new_request_id("parked-")
    admission = await admit(
        store, rid, nonce=new_nonce(), labels=_LABELS, frontend=frontend, on_disconnect=OnDisconnect.CONTINUE
    )
    if admission.outcome != "admitted":
        raise RuntimeError(f"a request could not be parked: {admission.outcome}")


async def _heartbeat(store: Store, frontend: str) -> None:
    while True:
        await asyncio.sleep(store.settings.heartbeat_secs)
        await join(store, frontend, Role.FRONTEND, {}, [])

"""A frontend keeps its readers of a request right when a write of them to Redis fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.ids import START
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.readers import Readers
from tests.unit.world import World


@pytest.mark.leaves_inflight
async def test_a_failed_attach_takes_nothing_from_who_comes_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader may have been counted, so it is taken back; by then the client has come again."""
    await world.run()
    store, taking_back = world.store, []
    readers = Readers(store, FrontendState(id="f1"), lambda work, name: taking_back.append(asyncio.create_task(work)))
    come_again, disconnect = asyncio.Event(), store.disconnect

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("Redis is away")

    async def late(*args: Any, **options: Any) -> Any:
        await come_again.wait()
        return await disconnect(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store, "attach", away)
        patch.setattr(store, "disconnect", late)
        with pytest.raises(StoreUnavailable):
            await readers.attach("r", START)
        patch.undo()
        monkeypatch.setattr(store, "disconnect", late)
        attaching = asyncio.create_task(readers.attach("r", START))
        await asyncio.sleep(0)
        come_again.set()
        opened = await attaching
        await asyncio.gather(*taking_back)
    assert opened is not None
    key = store.keys.prefix_of("r") + "readers:r"
    assert await store.command("HGET", key, "f1") == b"1"
    readers.close(opened[1])

"""The messages that Redis pushes to a frontend."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.store.transitions import Store


class Pushes:
    """Messages of one shard and frontend from `open` on; `take()` returns those since the last call, in order."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    @classmethod
    async def open(cls, store: Store, frontend: str, shard: int = 0) -> Pushes:
        pubsub: Any = store.commands._client.pubsub()
        await pubsub.ssubscribe(store.keys.inbox(shard, frontend))
        pushes = cls(pubsub)
        await pushes.take()
        return pushes

    async def take(self) -> list[tuple[str, str, Any]]:
        """(request id, entry id, tokens or event)… Whatever a script has pushed before this call is there.

        Tokens are pushed with the nonce of their start, which is left out here.
        """
        await self._pubsub.ping()
        items: list[tuple[str, str, Any]] = []
        while True:
            message = await self._pubsub.get_message(timeout=5.0)
            assert message is not None, "Redis has not answered a ping"
            if message["type"] == "pong":
                return items
            if message["type"] == "smessage":
                items += [tuple(item[:3]) for item in await self._frame(orjson.loads(message["data"]))]

    async def _frame(self, frame: Any) -> list[Any]:
        """Return the items of a frame; long tokens of the first one are the next message."""
        if isinstance(frame, dict):
            tokens = (await self._pubsub.get_message(timeout=5.0))["data"]
            assert frame["bytes"] == len(tokens)
            frame["items"][0][2] = orjson.loads(tokens)
            return frame["items"]  # type: ignore[no-any-return]
        return frame  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._pubsub.aclose()

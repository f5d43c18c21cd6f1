"""One connection to a Redis server for all listeners of sharded channels there, whatever the number of shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from lifecycle.store.link import PushLink, connected

_OF_A_CHANNEL = frozenset({b"smessage", b"ssubscribe", b"sunsubscribe"})


class SharedLinks:
    """The connections of one process, one for each client that was asked with."""

    def __init__(self) -> None:
        self._links: dict[Redis, _SharedLink] = {}
        self._opening: dict[Redis, asyncio.Lock] = {}

    async def open(self, client: Redis, on_push: Callable[[list[Any]], None]) -> LinkShare:
        """Return a share of the connection to the client's server, which is opened if there is none.

        `on_push` is called with the replies that concern the share's channels, and with those that name no channel.
        Raises RedisError and OSError.
        """
        async with self._opening.setdefault(client, asyncio.Lock()):
            shared = self._links.get(client)
            if shared is None or shared.is_over:
                shared = self._links[client] = _SharedLink(await connected(client))
            return LinkShare(shared, on_push)


class LinkShare:
    """Use a shared connection for one listener, as a PushLink is used.

    `lost` resolves to the reason when the connection is lost, or when `on_push` has raised.
    """

    def __init__(self, shared: _SharedLink, on_push: Callable[[list[Any]], None]) -> None:
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.on_push = on_push
        self._shared = shared
        shared.shares.append(self)

    def send(self, *args: str) -> None:
        """Send one command. The replies about a channel come to the share that has subscribed to it last."""
        if args[0] == "SSUBSCRIBE":
            self._shared.channels[args[1].encode()] = self
        self._shared.link.send(*args)

    def close(self) -> None:
        """Let go of the connection, which is closed with its last share; `lost` then never resolves."""
        self._shared.leave(self)

    def drop(self, why: Exception) -> None:
        """Close the connection, for all that share it, as if it were lost for this reason."""
        self._shared.link.drop(why)


class _SharedLink:
    def __init__(self, connection: Any) -> None:
        self.shares: list[LinkShare] = []
        self.channels: dict[bytes, LinkShare] = {}
        self.is_over = False  # it is closed or lost
        self.link = PushLink(connection, self._take)
        self.link.lost.add_done_callback(self._on_lost)

    def _take(self, replies: list[Any]) -> None:
        if len(self.shares) == 1:
            self._give(self.shares[0], replies)
            return
        by_share: dict[LinkShare, list[Any]] = {}
        for reply in replies:
            if type(reply) is list and reply and reply[0] in _OF_A_CHANNEL:
                share = self.channels.get(reply[1])
                if share is not None:
                    by_share.setdefault(share, []).append(reply)
            else:
                for share in self.shares:
                    by_share.setdefault(share, []).append(reply)
        for share, own in by_share.items():
            self._give(share, own)

    def _give(self, share: LinkShare, replies: list[Any]) -> None:
        try:
            share.on_push(replies)
        except Exception as failure:
            self.leave(share)
            if not share.lost.done():
                share.lost.set_result(failure)

    def leave(self, share: LinkShare) -> None:
        if share not in self.shares:
            return
        self.shares.remove(share)
        own = [channel for channel, holder in self.channels.items() if holder is share]
        for channel in own:
            del self.channels[channel]
        if not self.shares:
            self.is_over = True
            self.link.close()
            return
        for channel in own:
            self.link.send("SUNSUBSCRIBE", channel.decode())

    def _on_lost(self, lost: asyncio.Future[Exception]) -> None:
        self.is_over = True
        reason = RedisConnectionError("The connection was closed") if lost.cancelled() else lost.result()
        for share in self.shares:
            if not share.lost.done():
                share.lost.set_result(reason)
        self.shares.clear()

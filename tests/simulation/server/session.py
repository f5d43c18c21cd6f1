"""One connection as the server sees it: it parses commands, answers them in order, and may wait in a blocking read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hiredis

from tests.simulation.server.replies import CommandError, encode
from tests.simulation.server.streams import read_group

if TYPE_CHECKING:
    from tests.simulation.server.server import Server

_INCOMPLETE = object()
_SUBSCRIBING = {
    b"SUBSCRIBE": ("message", True),
    b"UNSUBSCRIBE": ("message", False),
    b"SSUBSCRIBE": ("smessage", True),
    b"SUNSUBSCRIBE": ("smessage", False),
}


class Session:
    """A session of one client. `send` is given what is to be sent to it."""

    def __init__(self, server: Server, send: Callable[[bytes], None]) -> None:
        self.send = send
        self._server = server
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._commands: deque[list[bytes]] = deque()
        self._blocked: list[bytes] | None = None  # the blocking read that waits
        self._timer: asyncio.TimerHandle | None = None
        self._channels: dict[tuple[str, bytes], None] = {}

    def receive(self, data: bytes) -> None:
        """Take bytes of the client, and execute every command that is complete."""
        self._reader.feed(data)
        while (command := self._reader.gets()) is not _INCOMPLETE:
            self._commands.append(command)
        self._work()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._commands.clear()
        self._server.close(self)

    def _work(self) -> None:
        replies: list[bytes] = []
        while self._commands and self._blocked is None:
            args = self._commands.popleft()
            name = args[0].upper()
            if name in _SUBSCRIBING:
                replies += self._subscribe(name.lower(), *_SUBSCRIBING[name], args[1:])
            elif name == b"PING" and self._channels:
                replies.append(encode([b"pong", b""]))
            else:
                reply = self._server.execute(args)
                block_ms = _block_ms(args) if reply is None and name == b"XREADGROUP" else None
                if block_ms is None:
                    replies.append(encode(reply))
                else:
                    self._block(args, block_ms)
        if replies:
            self.send(b"".join(replies))

    def _subscribe(self, word: bytes, kind: str, wanted: bool, channels: list[bytes]) -> list[bytes]:
        replies: list[bytes] = []
        for channel in channels:
            if wanted:
                self._channels[kind, channel] = None
                self._server.subscribe(self, kind, channel)
            else:
                self._channels.pop((kind, channel), None)
                self._server.unsubscribe(self, kind, channel)
            replies.append(encode([word, channel, len(self._channels)]))
        return replies

    # Blocking reads

    def _block(self, args: list[bytes], block_ms: int) -> None:
        self._blocked = args
        named = args[[arg.upper() for arg in args].index(b"STREAMS") + 1 :]
        self._server.block(self, named[: len(named) // 2])
        self._timer = asyncio.get_running_loop().call_later(block_ms / 1000, self._finish, None)

    def retry(self) -> None:
        """Answer the read that waits, if there is something now."""
        if self._blocked is None:
            return
        try:
            reply: Any = read_group(self._server.database, self._blocked[1:])
        except CommandError as failure:
            reply = failure
        if reply is not None:
            self._finish(reply)

    def _finish(self, reply: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._blocked = None
        self._server.unblock(self)
        self.send(b"*-1\r\n" if reply is None else encode(reply))
        if self._commands:
            asyncio.get_running_loop().call_soon(self._work)


def _block_ms(args: list[bytes]) -> int | None:
    words = [arg.upper() for arg in args]
    return int(args[words.index(b"BLOCK") + 1]) if b"BLOCK" in words else None

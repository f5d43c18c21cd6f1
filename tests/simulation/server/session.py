"""One connection as the server sees it: it parses commands, and answers them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import hiredis

from tests.simulation.server.replies import encode

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
        self.server = server
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._commands: deque[list[bytes]] = deque()
        self._channels: dict[tuple[str, bytes], None] = {}

    def receive(self, data: bytes) -> None:
        """Take bytes of the client, and execute every command that is complete."""
        self._reader.feed(data)
        while (command := self._reader.gets()) is not _INCOMPLETE:
            self._commands.append(command)
        self._work()

    def close(self) -> None:
        self._commands.clear()
        self.server.close(self)

    def _work(self) -> None:
        replies: list[bytes] = []
        while self._commands:
            args = self._commands.popleft()
            name = args[0].upper()
            if name in _SUBSCRIBING:
                replies += self._subscribe(name.lower(), *_SUBSCRIBING[name], args[1:])
            elif name == b"PING" and self._channels:
                replies.append(encode([b"pong", b""]))
            else:
                replies.append(encode(self.server.execute(args)))
        if replies:
            self.send(b"".join(replies))

    def _subscribe(self, word: bytes, kind: str, wanted: bool, channels: list[bytes]) -> list[bytes]:
        replies: list[bytes] = []
        for channel in channels:
            if wanted:
                self._channels[kind, channel] = None
                self.server.subscribe(self, kind, channel)
            else:
                self._channels.pop((kind, channel), None)
                self.server.unsubscribe(self, kind, channel)
            replies.append(encode([word, channel, len(self._channels)]))
        return replies

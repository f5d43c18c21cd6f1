"""A TCP proxy in front of Redis that breaks the link of one process, as networks do.

    async with FaultProxy(redis_url) as proxy:          # give proxy.url to the process
        proxy.delay_secs = 0.05                         # each way
        proxy.blackhole()                               # connections stay open, nothing passes; new ones are silent
        proxy.cut()                                     # every connection is reset, new ones too
        proxy.lead_to(port)                             # every connection is reset, new ones lead there
        proxy.restore()                                 # what was held passes on, late
        rule = proxy.on_request(script("finish"), Then.SWALLOW)
        await rule.fired()

Everything is switched at once and synchronously; there is no task but for a connection that is being made.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from lifecycle.store import script_loader

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST
_LONGEST_PATTERN_BYTES = 256


class Then(Enum):
    """The action of a rule on the chunk that it matches, and on that connection from then on."""

    SWALLOW = auto()  # it passes, and nothing that the server says afterwards comes back: the client must time out
    RESET = auto()  # it passes, and with the server's answer both ends are reset: executed, and never confirmed
    LOSE = auto()  # it and all that follows it in its direction is lost; the connection stays open
    DROP = auto()  # this chunk alone is lost


class _Mode(Enum):
    PASS = auto()
    BLACKHOLE = auto()
    CUT = auto()


def script(name: str) -> bytes:
    """Return a text that each call of the script contains. Redis refuses the first call of one that is not loaded."""
    return script_loader.load(name).sha.encode()


@dataclass(eq=False)
class Rule:
    """Fires so many times, then lets everything pass."""

    pattern: bytes
    then: Then
    times: int
    count: int = 0
    _fired: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def spent(self) -> bool:
        return self.count >= self.times

    async def fired(self, timeout_secs: float = 15.0) -> None:
        """Returns once it has fired as often as it was to."""
        try:
            async with asyncio.timeout(timeout_secs):
                await self._fired.wait()
        except TimeoutError:
            raise AssertionError(f"nothing matched {self.pattern!r} within {timeout_secs:g} s") from None

    def _fire(self) -> None:
        self.count += 1
        if self.spent:
            self._fired.set()


class FaultProxy:
    """One listening port on loopback in front of one Redis (`redis://` or `unix://`)."""

    def __init__(self, target: str, host: str = "127.0.0.1", port: int = 0) -> None:
        """`host` and `port`: where it listens."""
        parts = urlsplit(target)
        if parts.scheme not in ("redis", "unix"):
            raise ValueError(f"no proxy for {target!r}: TCP or a unix socket, without TLS")
        self._socket_path = parts.path if parts.scheme == "unix" else ""
        self._address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        query = parse_qs(parts.query)
        self._database = query.get("db", ["0"])[0] if self._socket_path else parts.path.strip("/") or "0"
        credentials, _, _ = parts.netloc.rpartition("@")
        self._credentials = credentials + "@" if credentials else ""
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._mode = _Mode.PASS
        self._detour_port: int | None = None
        self.host = host
        self.port = port
        self.delay_secs = 0.0
        self.refused = 0  # connections that came while it was cut
        self.rewritten: tuple[bytes, bytes] | None = None  # in the replies, the first text becomes the second
        self.requests: list[Rule] = []
        self.replies: list[Rule] = []

    @property
    def url(self) -> str:
        return f"redis://{self._credentials}{self.host}:{self.port}/{self._database}"

    @property
    def target_port(self) -> int:
        return self._address[1]

    @property
    def open(self) -> bool:
        return self._mode is _Mode.PASS

    @property
    def links(self) -> int:
        """Open connections."""
        return len(self._links)

    def on_request(self, pattern: bytes, then: Then, times: int = 1) -> Rule:
        """The next chunk from the process that contains this."""
        return self._add(self.requests, Rule(pattern, then, times))

    def on_reply(self, pattern: bytes, then: Then, times: int = 1) -> Rule:
        """The next chunk from Redis that contains this."""
        return self._add(self.replies, Rule(pattern, then, times))

    def blackhole(self) -> None:
        self._mode = _Mode.BLACKHOLE

    def cut(self) -> None:
        self._mode = _Mode.CUT
        self.reset()

    def reset(self) -> None:
        """Every connection of now; new ones are welcome."""
        for link in list(self._links):
            link.reset()

    def lead_to(self, port: int) -> None:
        """Every connection is reset, and new ones lead to another port of loopback."""
        self._detour_port = port
        self.reset()

    def restore(self) -> None:
        """The network is well again: what was held passes, however late. Rules stay."""
        self._mode, self.delay_secs = _Mode.PASS, 0.0
        if self._detour_port is not None:
            self._detour_port = None
            self.reset()
        for link in list(self._links):
            link.flush()

    async def start(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self).client, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        connecting = [link.connecting for link in self._links if link.connecting is not None]
        self.reset()
        await asyncio.gather(*connecting, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' last callbacks

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @staticmethod
    def _add(rules: list[Rule], rule: Rule) -> Rule:
        rules.append(rule)
        return rule

    async def _connect(self, protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        if self._detour_port is not None:
            await loop.create_connection(lambda: protocol, "127.0.0.1", self._detour_port)
        elif self._socket_path:
            await loop.create_unix_connection(lambda: protocol, self._socket_path)
        else:
            await loop.create_connection(lambda: protocol, *self._address)


class _Link:
    """One connection of the process, and the one to Redis that belongs to it."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.to_server = _Pipe(self, proxy.requests)
        self.to_client = _Pipe(self, proxy.replies)
        self.client = _End(self, self.to_server, self.to_client, accepted=True)
        self.server = _End(self, self.to_client, self.to_server, accepted=False)
        self.connecting: asyncio.Task[None] | None = None
        self.reset_on_reply = False

    def accepted(self) -> None:
        if self.proxy._mode is _Mode.CUT:
            self.proxy.refused += 1
            self.reset()
            return
        self.proxy._links.add(self)
        self.connecting = asyncio.create_task(self._connect(), name="proxy connects")

    async def _connect(self) -> None:
        try:
            await self.proxy._connect(self.server)
        except OSError:
            self.reset()

    def flush(self) -> None:
        self.to_server.flush()
        self.to_client.flush()

    def reset(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        for pipe in (self.to_server, self.to_client):
            pipe.discard()
        for end in (self.client, self.server):
            end.reset()
        self.proxy._links.discard(self)


class _End(asyncio.Protocol):
    """One of the two sockets of a link: what it receives goes into `outward`, `inward` writes to it."""

    def __init__(self, link: _Link, outward: _Pipe, inward: _Pipe, *, accepted: bool) -> None:
        self._link = link
        self._outward = outward
        self._inward = inward
        self._accepted = accepted
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inward.open(self._transport)
        if self._accepted:
            self._link.accepted()

    def data_received(self, data: bytes) -> None:
        self._outward.push(data)

    def connection_lost(self, failure: Exception | None) -> None:
        self._inward.discard()
        self._outward.end()

    def reset(self) -> None:
        if self._transport is None:
            return
        sock: Any = self._transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()


class _Pipe:
    """One direction of a link: what has come and has not gone on yet."""

    def __init__(self, link: _Link, rules: list[Rule]) -> None:
        self._link = link
        self._rules = rules
        self._held: deque[tuple[float, bytes]] = deque()
        self._tail = b""  # of what passed last: a pattern may lie across two chunks
        self._target: asyncio.Transport | None = None
        self._ended = False
        self._lost = False  # nothing passes any more
        self._timer: asyncio.TimerHandle | None = None

    def open(self, target: asyncio.Transport) -> None:
        self._target = target
        self.flush()

    def push(self, data: bytes) -> None:
        due = asyncio.get_running_loop().time() + self._link.proxy.delay_secs
        self._held.append((due, data))
        self.flush()

    def end(self) -> None:
        """The socket that fed it is closed: the other is too, once it has got what came before."""
        self._ended = True
        self.flush()

    def discard(self) -> None:
        self._held.clear()
        self._stop_timer()

    def flush(self) -> None:
        self._stop_timer()
        while self._held and self._target is not None and self._link.proxy.open:
            due, data = self._held[0]
            left_secs = due - asyncio.get_running_loop().time()
            if left_secs > 0.0005:
                self._timer = asyncio.get_running_loop().call_later(left_secs, self.flush)
                return
            self._held.popleft()
            self._pass(data)
        if self._ended and not self._held and self._target is not None and self._link.proxy.open:
            self._target.close()
            self._link.proxy._links.discard(self._link)

    def _pass(self, data: bytes) -> None:
        link = self._link
        if self is link.to_client and link.reset_on_reply:
            link.reset()
            return
        rule = self._matching(data)
        if rule is not None:
            rule._fire()
        if self._lost or (rule is not None and rule.then in (Then.LOSE, Then.DROP)):
            self._lost = self._lost or (rule is not None and rule.then is Then.LOSE)
            return
        assert self._target is not None
        if rule is None or self is link.to_server:
            rewritten = link.proxy.rewritten if self is link.to_client else None
            self._target.write(data.replace(*rewritten) if rewritten else data)
        if rule is not None and rule.then is Then.SWALLOW:
            link.to_client._lost = True
        elif rule is not None and rule.then is Then.RESET:
            if self is link.to_client:
                link.reset()
            link.reset_on_reply = True

    def _matching(self, data: bytes) -> Rule | None:
        tail, self._tail = self._tail, (self._tail + data)[-_LONGEST_PATTERN_BYTES:]

        def matches(rule: Rule) -> bool:  # it must end in what is new
            return rule.pattern in tail[max(0, len(tail) - len(rule.pattern) + 1) :] + data

        return next((rule for rule in self._rules if not rule.spent and matches(rule)), None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

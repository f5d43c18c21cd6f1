"""A relay in front of Redis that answers commands with an error of any kind, as Redis itself does at times.

async with RefusingRedis(server.port) as redis:     # give redis.url to the replicas
    redis.refuse("MISCONF the disk is full")        # answers every command but those that open a connection
    redis.refuse("BUSY", "append")                  # or only these scripts or commands
    redis.refused["append"]                         # how often a script, or a command, was refused
    redis.connections                               # how many were ever opened
    redis.accept()
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import Any, Self, cast

import hiredis

from lifecycle.store import script_loader

_OF_CONNECTIONS = frozenset({b"AUTH", b"HELLO", b"CLIENT", b"SELECT"})
_SUBSCRIBING = frozenset({b"SUBSCRIBE", b"SSUBSCRIBE"})
_INCOMPLETE = object()


class RefusingRedis:
    """One listening port on loopback in front of a Redis on a port of loopback."""

    def __init__(self, target_port: int) -> None:
        self.refused: Counter[str] = Counter()
        self.connections = 0  # that were ever opened
        self.error = b""
        self.only = frozenset[str]()
        self.target_port = target_port
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._scripts = {script_loader.load(name).sha.encode(): name for name in script_loader.names()}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def refuse(self, error: str, *only: str) -> None:
        """Refuse commands from now on: these scripts and commands, or all without a name.

        When all are refused the subscriptions are closed, which would send no command otherwise.
        """
        self.error, self.only = error.encode(), frozenset(only)
        for link in list(self._links):
            if link.is_subscribed and not only:
                link.close()

    def is_refused(self, command: list[bytes]) -> bool:
        """Return whether the command is to be answered with the error."""
        if not self.error or command[0].upper() in _OF_CONNECTIONS:
            return False
        return not self.only or self.name_of(command) in self.only

    def accept(self) -> None:
        """Pass every command on again."""
        self.error = b""

    def name_of(self, command: list[bytes]) -> str:
        """Return the name of the script that a command runs, or else its own name."""
        name = command[0].upper().decode()
        if name == "EVAL":
            return self._scripts.get(hashlib.sha1(command[1]).hexdigest().encode(), name)
        return self._scripts.get(command[1], name) if name == "EVALSHA" else name

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.close()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._serving.add(task)  # the event loop itself keeps none
        task.add_done_callback(self._serving.discard)
        upstream = await asyncio.open_connection("127.0.0.1", self.target_port)
        link = _Link(self, writer, upstream[1])
        self._links.add(link)
        replies = asyncio.create_task(link.pass_replies(upstream[0]))
        try:
            await link.pass_commands(reader)
        except ConnectionError:
            pass  # the process has gone
        finally:
            self._links.discard(link)
            link.close()
            await asyncio.wait((replies,))


class _Link:
    """One connection of a process."""

    def __init__(self, relay: RefusingRedis, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.is_subscribed = False
        self._relay = relay
        self._client = client
        self._server = server
        self._outstanding = 0  # replies of the server
        self._answered = asyncio.Event()

    def close(self) -> None:
        self._client.close()
        self._server.close()
        self._answered.set()

    async def pass_commands(self, reader: asyncio.StreamReader) -> None:
        parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        while data := await reader.read(65_536):
            parser.feed(data)
            while (command := cast(Any, parser.gets())) is not _INCOMPLETE:
                await self._pass(command)

    async def _pass(self, command: list[bytes]) -> None:
        name = command[0].upper()
        self.is_subscribed = self.is_subscribed or name in _SUBSCRIBING
        if not self._relay.is_refused(command):
            self._outstanding += 1
            self._answered.clear()
            self._server.write(hiredis.pack_command(cast(Any, tuple(command))))
            return
        await self._answered.wait() if self._outstanding > 0 else None  # replies come in order
        self._relay.refused[self._relay.name_of(command)] += 1
        self._client.write(b"-" + self._relay.error + b"\r\n")

    async def pass_replies(self, reader: asyncio.StreamReader) -> None:
        parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while parser.gets() is not _INCOMPLETE:
                    self._outstanding -= 1
                self._client.write(data)
                if self._outstanding <= 0:
                    self._answered.set()
        except ConnectionError:
            pass  # the server has gone
        finally:
            self.close()

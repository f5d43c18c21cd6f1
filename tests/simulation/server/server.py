"""A Redis server in memory: sessions that speak its protocol, and one database."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.simulation.server import sorted_sets, streams  # noqa: F401 - they enter their commands into the table
from tests.simulation.server.commands import COMMANDS, WRITES
from tests.simulation.server.database import Database
from tests.simulation.server.replies import CommandError, encode
from tests.simulation.server.scripts import Scripts
from tests.simulation.server.session import Session


class Server:
    """One server. `clock` returns its time in Unix seconds."""

    def __init__(self, clock: Callable[[], float], seed: int) -> None:
        self._clock = clock
        self.database = Database(random.Random(seed))
        self.database.publish = self._publish
        self.scripts = Scripts(self._call)
        self.sessions: dict[Session, None] = {}
        self.refusal = ""  # an error that answers every command that may write
        self._subscribers: dict[tuple[str, bytes], dict[Session, None]] = {}
        self.calls = 0
        self.generation = 0  # how often its data was replaced
        self.on_call: Callable[[list[bytes], Any], None] | None = None
        self.awaited: dict[str, Callable[[], None]] = {}  # called before the next run of the script with this SHA1

    def open(self, send: Callable[[bytes], None]) -> Session:
        """Open a session; `send` is given the bytes of its replies."""
        session = Session(self, send)
        self.sessions[session] = None
        return session

    def close(self, session: Session) -> None:
        self.sessions.pop(session, None)
        for subscribers in self._subscribers.values():
            subscribers.pop(session, None)

    def execute(self, args: list[bytes]) -> Any:
        """Execute a command and return its reply, or the CommandError that answers it."""
        database = self.database
        database.set_clock(self._clock())
        self.calls += 1
        try:
            reply = self._execute(args)
        except CommandError as failure:
            reply = failure
        if self.on_call is not None:
            self.on_call(args, reply)
        return reply

    def _execute(self, args: list[bytes]) -> Any:
        name = args[0].upper()
        if self.refusal and name not in (b"PING", b"CLIENT", b"INFO"):
            raise CommandError(self.refusal)
        if name == b"EVALSHA" or name == b"EVAL":
            sha = args[1].decode() if name == b"EVALSHA" else self.scripts.load(args[1])
            count = int(args[2])
            if sha in self.awaited:
                self.awaited.pop(sha)()
            self.database.writes += 1
            return self.scripts.run(sha, args[3 : 3 + count], args[3 + count :])
        if name in WRITES:
            self.database.writes += 1
        return self._call((name, *args[1:]))

    def _call(self, args: tuple[bytes, ...]) -> Any:
        command = COMMANDS.get(args[0])
        if command is None:
            raise CommandError(f"ERR unknown command '{args[0].decode(errors='replace')}' in the simulated Redis")
        if args[0] in WRITES:
            self.database.touched[args[1]] = None
        return command(self.database, args[1:])

    # Channels

    def subscribe(self, session: Session, kind: str, channel: bytes) -> None:
        self._subscribers.setdefault((kind, channel), {})[session] = None

    def unsubscribe(self, session: Session, kind: str, channel: bytes) -> None:
        self._subscribers.get((kind, channel), {}).pop(session, None)

    def _publish(self, kind: str, channel: bytes, message: bytes) -> int:
        receivers = list(self._subscribers.get((kind, channel), ()))
        if receivers:
            frame = encode([kind.encode(), channel, message])
            for session in receivers:
                session.send(frame)
        return len(receivers)

    # What may happen to a server

    def demote(self) -> Server:
        """Return another server that has this one's data and sessions: the one before a failover. Restart this one."""
        old = Server(self._clock, 0)
        old.database.load(self.database.dump())
        old.sessions, self.sessions = self.sessions, {}
        old._subscribers, self._subscribers = self._subscribers, {}
        for session in old.sessions:
            session.server = old
        return old

    def restart(self, dumped: bytes | None) -> None:
        """Begin anew with what was dumped, or with nothing. The sessions are closed by the network."""
        self.generation += 1
        if dumped is None:
            self.database.clear()
        else:
            self.database.load(dumped)
        self.scripts.forget()

"""Runs scripts and plain commands, and repeats them for a bounded time while Redis is unavailable."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from lifecycle.errors import StoreError, StoreForbidden, StoreFull, StoreUnavailable
from lifecycle.settings import Settings
from lifecycle.store import script_loader
from lifecycle.store.common_settings import CommonSettings
from lifecycle.store.keys import Keys
from lifecycle.store.merged_calls import MERGED, only_reply
from lifecycle.store.redis import Commands
from lifecycle.store.replicated_commands import REPLICATED, Unreplicated
from lifecycle.store.roster_cache import RosterCache
from lifecycle.store.script_loader import Script
from lifecycle.types import Role

_FIRST_PAUSE_SECS = 0.02
_LONGEST_PAUSE_SECS = 0.5
LEASES_PAGE = 500  # replicas of which something is read at once
_COMPILING = "Error compiling script"

T = TypeVar("T")

PendingReply = Coroutine[Any, Any, Any]
"""The reply of a command or a script, to be awaited once."""


def as_text(value: Any) -> str:
    """Return a part of a reply as text: Redis sends bytes, and integers for integer replies."""
    return value.decode() if isinstance(value, bytes) else str(value)


class ScriptRunner:
    """Base of the Store.

    Every method may raise StoreUnavailable: Redis cannot be reached, or refuses commands. The call may have been
    executed nevertheless. A method with `retry_for_secs` repeats it for that long before it raises, but not when the
    memory of Redis is full. An error that tells something about the data is raised as
    `redis.exceptions.ResponseError`; it is never repeated. Every script may raise StoreError when the server is too old
    for it.
    """

    def __init__(
        self,
        commands: Commands,
        settings: Settings,
        *,
        replicated: Commands | None = None,
        unreplicated: Unreplicated | None = None,
        clock_shift_secs: float = 0.0,
        plain_lua: bool = False,
    ) -> None:
        """`replicated` sends the scripts that wait for replicas, and `unreplicated` counts those that waited in vain.

        `clock_shift_secs` moves the clock that the scripts see, and `plain_lua` removes their `#!lua` line. Both are
        for tests.
        """
        self.commands = commands
        self._replicated = replicated or commands
        self.unreplicated = unreplicated or Unreplicated()
        self.settings = settings
        self.common = CommonSettings()
        self.roster_cache = RosterCache()
        self.forbidden_calls = 0  # of scripts, that the access rules of Redis have refused so far
        self.keys = Keys(settings.namespace, settings.shards)
        self.clock_shift_secs = clock_shift_secs
        self._prefixes = self.keys.prefixes
        self._loading: dict[tuple[str, str], asyncio.Event] = {}  # by script and prefix
        self._scripts = {
            name: script_loader.load(name).without_shebang() if plain_lua else script_loader.load(name)
            for name in script_loader.names()
        }

    async def ping(self) -> None:
        """Check that a server answers and takes new data: that of the control keys, or if it is away, any shard's.

        Raises StoreUnavailable when none does; StoreFull when that is only for want of memory.
        """
        await self.on_any_server(lambda prefix: self.command("SET", prefix + "confirmed", 1, "XX", "EX", 60))

    async def on_any_server(self, ask: Callable[[str], Awaitable[T]]) -> T:
        """Return what the slot of the control keys answers, or if that fails, any shard: `ask` is given the prefix.

        Raises StoreUnavailable, that of the control keys, when none answers.
        """
        try:
            return await ask(self.keys.control)
        except StoreUnavailable:
            outcomes = await asyncio.gather(*map(ask, self._prefixes), return_exceptions=True)
            for outcome in outcomes:
                if not isinstance(outcome, BaseException):
                    return outcome
            raise

    async def now(self) -> float:
        """Return Redis's time in Unix seconds. All times in a record are by this clock."""
        secs, micros = await self.command("TIME")
        return int(secs) + int(micros) / 1e6 + self.clock_shift_secs

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[str]]:
        """Yield the Redis keys that match the pattern, page by page, from every server that holds a part of the data.

        A page may be empty, and a Redis key may come more than once.
        """
        for node in await self.commands.nodes():
            cursor = b"0"
            while True:
                cursor, keys = await node.execute("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                yield [key.decode(errors="replace") for key in keys]
                if int(cursor) == 0:
                    break

    async def _lease_pages(self, script: str, prefix: str, role: Role, *args: str) -> AsyncIterator[list[Any]]:
        """Yield what a script returns of each page of the leases of one role. Raises StoreUnavailable."""
        begin = ""
        while True:
            following, *flat = await self._call(
                script, prefix, role.value, self.settings.lease_secs, begin, LEASES_PAGE, *args
            )
            yield flat
            begin = as_text(following)
            if not begin:
                return

    # The following three return a coroutine and are none themselves: each layer of coroutines costs a request more
    # than the call of a function, and every script passes all of them.

    def command(self, *args: Any, retry_for_secs: float = 0.0) -> PendingReply:
        """Execute a plain command and return its reply. It must be safe to repeat."""
        return self._repeat(retry_for_secs, self.commands.execute, args)

    def run(self, name: str, prefix: str, *args: Any, retry_for_secs: float = 0.0) -> PendingReply:
        """Run the script `lua/<name>.lua` in the slot of this prefix, and return its reply."""
        return self._repeat(retry_for_secs, self._call, (name, prefix, *args))

    def _in_shard(self, name: str, rid: str, retry_for_secs: float, *args: Any) -> PendingReply:
        """Run a script in the shard of this request, whose id is the script's first argument."""
        prefix = self._prefixes[self.keys.shard_of(rid)]
        return self._repeat(retry_for_secs, self._call, (name, prefix, rid, *args))

    @staticmethod
    async def _repeat(retry_for_secs: float, call: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        """Repeat the call while Redis is unavailable, with growing pauses, for at most `retry_for_secs`."""
        retry_until, pause = time.monotonic() + retry_for_secs, _FIRST_PAUSE_SECS
        while True:
            try:
                return await call(*args)
            except StoreFull:
                raise  # a repetition would bring what has no room, such as a body, again and again
            except StoreUnavailable:
                if time.monotonic() + pause > retry_until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECS)

    async def _call(self, name: str, prefix: str, *args: Any) -> Any:
        """Run a script once, as `run` without `retry_for_secs` does."""
        script = self._scripts[name]
        arguments = (prefix, self.clock_shift_secs, *args)
        commands = self._replicated if name in REPLICATED else self.commands
        try:
            try:
                reply = await commands.execute("EVALSHA", script.sha, 1, *arguments)
            except NoScriptError:  # a new or flushed server does not have the script yet; EVAL also loads it
                reply = await self._load(commands, name, script, arguments)
            return only_reply(reply) if name in MERGED else reply
        except StoreForbidden:
            self.forbidden_calls += 1
            raise

    async def _load(self, commands: Commands, name: str, script: Script, arguments: tuple[Any, ...]) -> Any:
        """Run a script that the server does not have. Callers at the same time send its source only once."""
        key = (name, arguments[0])
        loading = self._loading.get(key)
        if loading is not None:
            await loading.wait()
            with suppress(NoScriptError):
                return await commands.execute("EVALSHA", script.sha, 1, *arguments)
        loaded = self._loading[key] = asyncio.Event()
        try:
            return await commands.execute("EVAL", script.source, 1, *arguments)
        except ResponseError as failure:
            if _COMPILING in str(failure):
                raise StoreError(await self._too_old()) from failure
            raise
        finally:
            loaded.set()
            if self._loading.get(key) is loaded:
                del self._loading[key]

    async def _too_old(self) -> str:
        """Return the message for a server that does not know the first line of our scripts."""
        info = (await self.commands.execute("INFO", "server")).decode(errors="replace")
        found = re.search(r"^redis_version:(\S+)", info, re.MULTILINE)
        version = found[1] if found else "an unknown version"
        return f"Redis {version} is too old: run Redis 7.0 or newer, or Valkey"

"""fakeredis in the server's place: the scripts at the speed of unit tests, without a socket.

A stand-in for the server and for nothing else: everything above it is the real thing. It knows less than a server
(what it accepts proves little), so every machine and script test runs on a real one too.
"""

from __future__ import annotations

from typing import Any, cast

from fakeredis import FakeAsyncRedis, FakeServer
from fakeredis.commands_mixins.scripting_mixin import ScriptingCommandsMixin

from lifecycle.settings import Settings
from lifecycle.store.redis import Commands
from lifecycle.store.transitions import Store

_SERVER_VERSION = (7, 0)


def fake_store(settings: Settings) -> Store:
    """A store over an empty server of its own. `plain_lua`: fakeredis cannot parse a script's `#!lua` line."""
    client = FakeAsyncRedis(server=FakeServer(version=_SERVER_VERSION, server_type="redis"), protocol=2)
    return Store(_Commands(client), settings, plain_lua=True)


class _Commands(Commands):
    """Executes commands without a socket, so there is no connection to break."""

    async def execute(self, *args: Any) -> Any:
        self._client.response_callbacks.clear()
        return await cast(Any, self._client).execute_command(*args)


def _pcall_with_text(self: Any, lua_runtime: Any, expected_globals: Any, op: bytes, *args: Any) -> Any:
    """fakeredis hands the message of a caught error to Lua as a Python object, which no string function takes."""
    try:
        return self._lua_redis_call(lua_runtime, expected_globals, op, *args)
    except Exception as failure:
        return lua_runtime.table_from({b"err": str(failure).encode()})


setattr(ScriptingCommandsMixin, "_lua_redis_pcall", _pcall_with_text)  # noqa: B010 - mypy forbids to assign it

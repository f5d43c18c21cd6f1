"""Run Lua scripts in one interpreter, with Redis's conversions between Lua's values and replies."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lupa.lua51 as lua
import orjson

from tests.simulation.server.replies import CommandError, Simple

Call = Callable[[tuple[bytes, ...]], Any]

_running: list[Scripts] = []  # the last whose script has run, at most one
_JSON = Path(__file__).with_name("json.lua").read_bytes()


@functools.cache
def _interpreter() -> tuple[Any, Any, dict[str, Any]]:
    """Return this process's interpreter, its function that compiles, and the scripts that it has compiled."""
    runtime = lua.LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
    return runtime, runtime.eval(b"function(source, name) return assert(loadstring(source, name)) end"), {}


class Scripts:
    """The scripts that one server knows, by the SHA1 of their source. `call` executes a command.

    All servers of a process share one interpreter.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lua, self._load, self._compiled = _interpreter()
        self._functions: dict[str, Any] = {}
        names = self._lua.globals()
        names[b"decoded"] = self._decoded
        self._lua.execute(_JSON)
        self._names = names

    def forget(self) -> None:
        """Forget all scripts, as a server that was started anew."""
        self._functions.clear()

    def load(self, source: bytes) -> str:
        """Compile a script and return its SHA1."""
        sha = hashlib.sha1(source).hexdigest()
        if sha not in self._compiled:
            flags, newline, body = source.partition(b"\n")
            plain = newline + body if flags.startswith(b"#!") else source
            self._compiled[sha] = self._load(plain, b"@user_script")
        self._functions[sha] = self._compiled[sha]
        return sha

    def run(self, sha: str, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Return the reply of a script. Raises CommandError, as for one that the server does not know."""
        function = self._functions.get(sha)
        if function is None:
            raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
        if _running != [self]:  # not a table for each server: it would keep its server in memory for ever
            _running[:] = [self]
            self._names[b"redis"] = self._lua.table_from({b"call": self._redis_call, b"pcall": self._redis_pcall})
        self._names[b"KEYS"] = self._lua.table_from(list(keys))
        self._names[b"ARGV"] = self._lua.table_from(list(args))
        return self._to_reply(function())

    def _redis_call(self, *args: Any) -> Any:
        for arg in args:
            if type(arg) is not bytes:
                args = tuple(map(_as_bytes, args))
                break
        reply = self._call(args)
        kind = type(reply)
        return reply if kind is bytes or kind is int else self._to_lua(reply)

    def _redis_pcall(self, *args: Any) -> Any:
        try:
            return self._redis_call(*args)
        except CommandError as failure:
            return self._lua.table_from({b"err": str(failure).encode()})

    def _to_lua(self, reply: Any) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from(
                [self._to_lua(element) if type(element) is not bytes else element for element in reply]
            )
        if isinstance(reply, Simple):
            return self._lua.table_from({b"ok": bytes(reply)})
        return reply

    def _to_reply(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, bytes):
            return value
        if isinstance(value, (int, float)):
            return int(value)
        if value[b"err"] is not None:
            raise CommandError(value[b"err"].decode(errors="replace"))
        if value[b"ok"] is not None:
            return Simple(value[b"ok"])
        reply: list[Any] = []
        index = 1
        while (element := value[index]) is not None:
            reply.append(self._to_reply(element))
            index += 1
        return reply

    def _decoded(self, text: bytes) -> Any:
        return self._table(orjson.loads(text))

    def _table(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return self._lua.table_from([self._table(element) for element in value])
        if isinstance(value, dict):
            return self._lua.table_from({key.encode(): self._table(element) for key, element in value.items()})
        return value


def _as_bytes(arg: Any) -> bytes:
    if type(arg) is bytes:
        return arg
    if isinstance(arg, bool) or not isinstance(arg, (int, float)):
        raise CommandError("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % arg if arg == int(arg) else b"%.17g" % arg

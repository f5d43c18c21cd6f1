"""Serve fakeredis over TCP as a script, `python fake_redis.py PORT`: the last resort of `embedded_redis`.

It changes fakeredis in three ways, in this process only:
- Nagle's algorithm is off, since with it a round trip can wait for a delayed acknowledgement.
- An error reply keeps the connection open, and is one line as the protocol demands; fakeredis closes the connection
  and sends Lua's whole traceback.
- The line `#!lua flags=...` of a script is blanked before the interpreter sees it, since fakeredis cannot parse it.
  This happens below the script cache, so EVALSHA finds a script by the SHA1 of the source that the client sent.
"""

from __future__ import annotations

import sys
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from fakeredis.commands_mixins.scripting_mixin import ScriptingCommandsMixin
from redis import ResponseError

SERVER_VERSION = (7, 0)


def blank_flags(script: bytes) -> bytes:
    """Return the script with its `#!` line blanked; the number of lines stays, so that errors name the right one."""
    if not script.startswith(b"#!"):
        return script
    _, newline, rest = script.partition(b"\n")
    return newline + rest


class _Wrapper:
    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _Interpreter(_Wrapper):
    """A Lua runtime that accepts scripts with a `#!` line."""

    def execute(self, script: Any) -> Any:
        return self._wrapped.execute(blank_flags(script) if isinstance(script, bytes) else script)


class _Connection(_Wrapper):
    """A connection that returns error replies in one line; raised errors would end the handler's loop."""

    def read_response(self) -> Any:
        try:
            return self._wrapped.read_response()
        except ResponseError as reply:
            return type(reply)(" ".join(str(reply).splitlines()))


class _Handler(TCPFakeRequestHandler):
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.current_client: Any = _Connection(self.current_client)


def accept_flags() -> None:
    """Make fakeredis accept scripts with a `#!` line, in this process."""
    interpreter_of = ScriptingCommandsMixin._get_server_runtime

    def tolerant(self: Any, server: Any) -> _Interpreter:
        return _Interpreter(interpreter_of(self, server))

    setattr(ScriptingCommandsMixin, "_get_server_runtime", tolerant)  # noqa: B010 - mypy forbids a plain assignment to a method


def main(port: int) -> None:
    """Serve on this loopback port until the process is killed."""
    accept_flags()
    server = TcpFakeServer(("127.0.0.1", port), server_type="redis", server_version=SERVER_VERSION)
    server.RequestHandlerClass = _Handler
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))

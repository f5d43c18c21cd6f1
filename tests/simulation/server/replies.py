"""Encode replies as the Redis protocol has them (RESP2)."""

from __future__ import annotations

from typing import Any


class Simple(bytes):
    """A simple string, such as OK."""


class CommandError(Exception):
    """Raised by a command that Redis refuses; the text is the error reply."""


OK = Simple(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def encode(reply: Any) -> bytes:
    """Return a reply as the bytes that Redis sends: None, int, bytes, a list, or an error."""
    kind = type(reply)
    if kind is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if kind is int:
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if kind is list:
        return b"*%d\r\n%b" % (len(reply), b"".join(map(encode, reply)))
    if kind is Simple:
        return b"+%b\r\n" % reply
    if isinstance(reply, CommandError):
        return b"-%b\r\n" % " ".join(str(reply).splitlines()).encode()
    raise TypeError(f"no reply of Redis is {reply!r:.100}")

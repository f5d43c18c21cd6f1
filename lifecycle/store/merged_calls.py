"""Merge the calls of one script that are sent in one pipeline into one call, which costs Redis much less.

A script that can be merged takes the arguments of any number of requests, one after the other, and returns a list with
one reply for each. A caller sends its own arguments and gets a list with its own reply, whatever was sent beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from lifecycle.store import script_loader
from lifecycle.store.arguments import pack
from lifecycle.store.link import Receiver
from lifecycle.store.redis_errors import unavailable

MERGED = frozenset({"admit", "finish"})
"""The scripts whose calls are merged."""

CALLS_LIMIT = 16  # of one merged call, which keeps Redis busy for about a millisecond
BYTES_LIMIT = 64 * 1024  # from which on no further call is added to it

_COMMON_ARGUMENTS = 5  # EVALSHA, the SHA-1, the number of keys, the prefix and the clock's shift
_HEADS = 4096  # that are remembered


class Unconfirmed(NamedTuple):
    """The reply of a command that too few replicas of Redis have confirmed: see ReplicatedCommands."""

    reply: Any
    confirmed: str


class Call(NamedTuple):
    """A command that waits to be sent. `head` is what it has in common with those that it can be merged with."""

    command: bytes
    reply: Receiver
    head: bytes = b""  # empty for a command that is not merged
    arguments: int = 0  # how many follow the head

    @classmethod
    def of(cls, args: tuple[Any, ...], reply: Receiver) -> Call:
        """Return the call of a command whose reply `reply` gets."""
        if args[0] == "EVALSHA" and args[1] in _merged_shas():
            return cls(pack(args), reply, _head(args[1], args[3], str(args[4])), len(args) - _COMMON_ARGUMENTS)
        return cls(pack(args), reply)

    @property
    def block(self) -> bytes:
        """Return the packed arguments that follow the head."""
        return self.command[self.command.index(b"\n") + 1 + len(self.head) :]


def merge(calls: Sequence[Call]) -> list[Call]:
    """Return what is sent for these calls, in the places of the first ones."""
    groups: list[list[Call]] = []
    open_groups: dict[bytes, list[Call]] = {}
    sizes: dict[bytes, int] = {}
    for call in calls:
        head = call.head
        group = open_groups.get(head) if head else None
        if group is not None and len(group) < CALLS_LIMIT and sizes[head] < BYTES_LIMIT:
            group.append(call)
            sizes[head] += len(call.command)
        else:
            groups.append([call])
            if head:
                open_groups[head], sizes[head] = groups[-1], len(call.command)
    return [group[0] if len(group) == 1 else _merged(group) for group in groups]


def values_of(value: Any, calls: int) -> Sequence[Any]:
    """Return the values for the merged calls: a list of one reply for each, or the error that all of them get."""
    if isinstance(value, Unconfirmed):
        return [Unconfirmed(own, value.confirmed) for own in values_of(value.reply, calls)]
    if not isinstance(value, list):
        return [value] * calls
    if len(value) != calls:
        return [ResponseError(f"Redis answered {calls} merged calls with {len(value)} replies")] * calls
    return [[reply] for reply in value]


def only_reply(replies: Sequence[Any]) -> Any:
    """Return the reply to a single call. Raises the error that it may be, as `Commands.execute` does."""
    reply = replies[0]
    if isinstance(reply, Exception):
        raise unavailable(reply, "EVALSHA") or reply
    return reply


def _merged(group: Sequence[Call]) -> Call:
    count = _COMMON_ARGUMENTS + sum(call.arguments for call in group)
    command = b"".join((b"*%d\r\n" % count, group[0].head, *(call.block for call in group)))
    return Call(command, _Replies([call.reply for call in group]))


class _Replies:
    """Passes on what has become of a merged call to the callers that still wait."""

    def __init__(self, replies: Sequence[Receiver]) -> None:
        self._replies = replies

    def done(self) -> bool:
        return all(reply.done() for reply in self._replies)

    def set_result(self, value: Any, /) -> None:
        values = values_of(value, len(self._replies))
        for reply, own in zip(self._replies, values, strict=True):
            if not reply.done():
                reply.set_result(own)

    def set_exception(self, failure: BaseException, /) -> None:
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(failure)


@cache
def _merged_shas() -> frozenset[str]:
    return frozenset(script_loader.load(name).sha for name in MERGED)


@lru_cache(_HEADS)
def _head(sha: str, prefix: str, shift: str) -> bytes:
    """Return the packed arguments that calls have in common, without the line that says how many there are."""
    return pack(("EVALSHA", sha, 1, prefix, shift)).partition(b"\n")[2]

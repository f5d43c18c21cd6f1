"""Implement the commands on streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulation.server.commands import command
from tests.simulation.server.database import Database
from tests.simulation.server.replies import CommandError
from tests.simulation.server.values import HIGHEST, EntryId, Stream, format_id, parse_id

_TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
_MOST_SEQ = HIGHEST[1]


@command("XADD", writes=True)
def _xadd(db: Database, args: Sequence[bytes]) -> Any:
    key, *rest = args
    if rest[0] == b"NOMKSTREAM":
        rest = rest[1:]
        if db.typed(key, Stream) is None:
            return None
    if rest[0] != b"*" and parse_id(rest[0]) == (0, 0):
        raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
    stream = db.made(key, Stream)
    if rest[0] == b"*":
        if stream.last_id == HIGHEST:
            raise CommandError("ERR The stream has exhausted the last possible ID, unable to add more items")
        ms, seq = stream.last_id
        entry_id = (db.now_ms, 0) if db.now_ms > ms else (ms, seq + 1)
    else:
        entry_id = parse_id(rest[0])
        if entry_id <= stream.last_id:
            raise CommandError(_TOO_SMALL)
    stream.add(entry_id, list(rest[1:]))
    return format_id(entry_id)


@command("XLEN")
def _xlen(db: Database, args: Sequence[bytes]) -> Any:
    return len(db.typed(args[0], Stream) or ())


@command("XDEL", writes=True)
def _xdel(db: Database, args: Sequence[bytes]) -> Any:
    stream = db.typed(args[0], Stream)
    return sum(stream.remove(parse_id(entry)) for entry in args[1:]) if stream else 0


def _low(text: bytes) -> EntryId:
    if text == b"-":
        return (0, 0)
    if text[:1] == b"(":
        ms, seq = parse_id(text[1:])
        if (ms, seq) == HIGHEST:
            raise CommandError("ERR invalid start ID for the interval")
        return (ms, seq + 1) if seq < _MOST_SEQ else (ms + 1, 0)
    return parse_id(text)


def _high(text: bytes) -> EntryId:
    if text == b"+":
        return HIGHEST
    if text[:1] == b"(":
        ms, seq = parse_id(text[1:])
        return (ms, seq - 1) if seq > 0 else (ms - 1, _MOST_SEQ)
    return parse_id(text, _MOST_SEQ)


def _limited(ids: list[EntryId], options: Sequence[bytes]) -> list[EntryId]:
    return ids[: int(options[1])] if options else ids


@command("XRANGE")
def _xrange(db: Database, args: Sequence[bytes]) -> Any:
    low, high = _low(args[1]), _high(args[2])
    stream = db.typed(args[0], Stream)
    if stream is None:
        return []
    ids = _limited(stream.between(low, high), args[3:])
    return [[format_id(entry), list(stream.entries[entry])] for entry in ids]


@command("XREVRANGE")
def _xrevrange(db: Database, args: Sequence[bytes]) -> Any:
    low, high = _low(args[2]), _high(args[1])
    stream = db.typed(args[0], Stream)
    if stream is None:
        return []
    ids = _limited(stream.between(low, high)[::-1], args[3:])
    return [[format_id(entry), list(stream.entries[entry])] for entry in ids]

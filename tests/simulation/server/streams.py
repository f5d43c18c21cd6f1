"""Implement the commands on streams and their consumer groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulation.server.commands import command
from tests.simulation.server.database import Database
from tests.simulation.server.replies import OK, CommandError
from tests.simulation.server.values import HIGHEST, EntryId, Group, PendingEntry, Stream, format_id, parse_id

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
    db.on_entry(key)
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


# Consumer groups


def _group(db: Database, key: bytes, name: bytes) -> tuple[Stream, Group]:
    stream = db.typed(key, Stream)
    group = stream.groups.get(name) if stream is not None else None
    if stream is None or group is None:
        shown = key.decode(errors="replace"), name.decode(errors="replace")
        raise CommandError(f"NOGROUP No such key '{shown[0]}' or consumer group '{shown[1]}'")
    return stream, group


@command("XGROUP", writes=True)
def _xgroup(db: Database, args: Sequence[bytes]) -> Any:
    what, key, name, *rest = args
    if db.typed(key, Stream) is None and b"MKSTREAM" not in rest:
        raise CommandError("ERR The XGROUP subcommand requires the key to exist")
    if what == b"CREATE":
        stream = db.made(key, Stream)
        if name in stream.groups:
            raise CommandError("BUSYGROUP Consumer Group name already exists")
        stream.groups[name] = Group(stream.last_id if rest[0] == b"$" else parse_id(rest[0]))
        return OK
    if what == b"DELCONSUMER":
        _, group = _group(db, key, name)
        owned = [entry for entry, pending in group.pending.items() if pending.consumer == rest[0]]
        for entry in owned:
            del group.pending[entry]
        group.consumers.pop(rest[0], None)
        return len(owned)
    raise CommandError(f"ERR the simulated XGROUP does not know {what!r}")


@command("XACK", writes=True)
def _xack(db: Database, args: Sequence[bytes]) -> Any:
    stream = db.typed(args[0], Stream)
    group = stream.groups.get(args[1]) if stream is not None else None
    if group is None:
        return 0
    return sum(group.pending.pop(parse_id(entry), None) is not None for entry in args[2:])


@command("XPENDING")
def _xpending(db: Database, args: Sequence[bytes]) -> Any:
    _, group = _group(db, args[0], args[1])
    pending = sorted(group.pending)
    if len(args) == 2:
        owners: dict[bytes, int] = {}
        for entry in pending:
            consumer = group.pending[entry].consumer
            owners[consumer] = owners.get(consumer, 0) + 1
        if not pending:
            return [0, None, None, None]
        counts: list[Any] = [[consumer, b"%d" % count] for consumer, count in sorted(owners.items())]
        return [len(pending), format_id(pending[0]), format_id(pending[-1]), counts]
    low, high, most = args[2:5]
    named = args[5:]
    rows: list[Any] = []
    for entry in pending:
        item = group.pending[entry]
        if _low(low) <= entry <= _high(high) and (not named or item.consumer == named[0]):
            rows.append([format_id(entry), item.consumer, db.now_ms - item.delivered_at_ms, item.deliveries])
    return rows[: int(most)]


@command("XREADGROUP", writes=True)
def read_group(db: Database, args: Sequence[bytes]) -> Any:
    """Return what there is now; the session waits if the caller asked to block."""
    name, consumer = args[1], args[2]
    words = [arg.upper() for arg in args]
    count = int(args[words.index(b"COUNT") + 1]) if b"COUNT" in words else 1 << 30
    named = args[words.index(b"STREAMS") + 1 :]
    keys, positions = named[: len(named) // 2], named[len(named) // 2 :]
    replies: list[Any] = []
    groups = [_group(db, key, name) for key in keys]  # every group is checked before any is read
    for key, position, (stream, group) in zip(keys, positions, groups, strict=True):
        group.consumers.setdefault(consumer)
        if position == b">":
            entries = _deliver(db, stream, group, consumer, count)
        else:
            after = parse_id(position)
            own = sorted(entry for entry, item in group.pending.items() if item.consumer == consumer and entry > after)
            entries = [[format_id(entry), stream.entries.get(entry)] for entry in own[:count]]
        if entries or position != b">":
            replies.append([key, entries])
    return replies or None


def _deliver(db: Database, stream: Stream, group: Group, consumer: bytes, count: int) -> list[Any]:
    ms, seq = group.last_delivered
    fresh = stream.between((ms, seq + 1), HIGHEST)[:count]
    for entry in fresh:
        group.pending[entry] = PendingEntry(consumer, db.now_ms, 1)
        group.last_delivered = entry
    return [[format_id(entry), list(stream.entries[entry])] for entry in fresh]

"""Implement the commands on strings, hashes, sets and keys that lifecycle uses, as a table from name to function.

A function is given the database and the arguments as bytes, and returns the reply. A command that lifecycle does not
use is missing, and fails loudly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.server.database import Database
from tests.simulation.server.replies import OK, CommandError, Simple
from tests.simulation.server.values import Hash, Members, SortedSet, Stream

Command = Callable[[Database, Sequence[bytes]], Any]
COMMANDS: dict[bytes, Command] = {}
WRITES: set[bytes] = set()


def command(*names: str, writes: bool = False) -> Callable[[Command], Command]:
    """Enter a function into the table under these names."""

    def enter(function: Command) -> Command:
        for name in names:
            COMMANDS[name.encode()] = function
            if writes:
                WRITES.add(name.encode())
        return function

    return enter


def formatted(number: float) -> bytes:
    """Return a score as Redis writes it."""
    return b"%d" % int(number) if number == int(number) else repr(number).encode()


@command("PING")
def _ping(db: Database, args: Sequence[bytes]) -> Any:
    return Simple(b"PONG")


@command("CLIENT", "SELECT", "AUTH")
def _accept(db: Database, args: Sequence[bytes]) -> Any:
    return OK


@command("INFO")
def _info(db: Database, args: Sequence[bytes]) -> Any:
    return b"redis_version:7.2.0\r\nmaxmemory_policy:noeviction\r\n"


@command("TIME")
def _time(db: Database, args: Sequence[bytes]) -> Any:
    secs, micros = divmod(db.now_micros, 1_000_000)
    return [b"%d" % secs, b"%d" % micros]


@command("PUBLISH")
def _publish(db: Database, args: Sequence[bytes]) -> Any:
    return db.publish("message", args[0], args[1])


@command("SPUBLISH")
def _spublish(db: Database, args: Sequence[bytes]) -> Any:
    return db.publish("smessage", args[0], args[1])


# Keys


@command("EXISTS")
def _exists(db: Database, args: Sequence[bytes]) -> Any:
    return sum(db.find(key) is not None for key in args)


@command("DEL", "UNLINK", writes=True)
def _del(db: Database, args: Sequence[bytes]) -> Any:
    return sum(db.find(key) is not None and db.delete(key) for key in args)


@command("PEXPIRE", writes=True)
def _pexpire(db: Database, args: Sequence[bytes]) -> Any:
    if db.find(args[0]) is None:
        return 0
    db.expires_at_ms[args[0]] = db.now_ms + int(args[1])
    return 1


@command("PERSIST", writes=True)
def _persist(db: Database, args: Sequence[bytes]) -> Any:
    return int(db.find(args[0]) is not None and db.expires_at_ms.pop(args[0], None) is not None)


@command("PTTL")
def _pttl(db: Database, args: Sequence[bytes]) -> Any:
    if db.find(args[0]) is None:
        return -2
    return max(0, db.expires_at_ms[args[0]] - db.now_ms) if args[0] in db.expires_at_ms else -1


@command("SCAN")
def _scan(db: Database, args: Sequence[bytes]) -> Any:
    pattern = args[args.index(b"MATCH") + 1] if b"MATCH" in args else b"*"
    matching = re.compile(re.escape(pattern).replace(rb"\*", b".*"), re.DOTALL)
    return [b"0", [key for key in list(db.values) if matching.fullmatch(key) and db.find(key) is not None]]


@command("TYPE")
def _type(db: Database, args: Sequence[bytes]) -> Any:
    kinds = {bytes: b"string", Hash: b"hash", Members: b"set", SortedSet: b"zset", Stream: b"stream"}
    value = db.find(args[0])
    return Simple(b"none" if value is None else kinds[type(value)])


@command("MEMORY")
def _memory(db: Database, args: Sequence[bytes]) -> Any:
    value = db.find(args[1])
    if value is None:
        return None
    if isinstance(value, Stream):
        return 100 + sum(40 + sum(map(len, flat)) for flat in value.entries.values())
    return 100 + len(value)


# Strings


@command("GET")
def _get(db: Database, args: Sequence[bytes]) -> Any:
    return db.typed(args[0], bytes)


@command("STRLEN")
def _strlen(db: Database, args: Sequence[bytes]) -> Any:
    return len(db.typed(args[0], bytes) or b"")


@command("SET", writes=True)
def _set(db: Database, args: Sequence[bytes]) -> Any:
    key, value, *options = args
    before = db.typed(key, bytes) if b"GET" in options else db.find(key)
    unchanged = (b"NX" in options and before is not None) or (b"XX" in options and before is None)
    if not unchanged:
        db.values[key] = value
        db.expires_at_ms.pop(key, None)
        for unit, factor in ((b"EX", 1000), (b"PX", 1)):
            if unit in options:
                db.expires_at_ms[key] = db.now_ms + factor * int(options[options.index(unit) + 1])
    if b"GET" in options:
        return before
    return None if unchanged else OK


def _add(db: Database, key: bytes, by: int) -> int:
    number = int(db.typed(key, bytes) or b"0") + by
    db.values[key] = b"%d" % number
    return number


@command("INCRBY", writes=True)
def _incrby(db: Database, args: Sequence[bytes]) -> Any:
    return _add(db, args[0], int(args[1]))


@command("DECRBY", writes=True)
def _decrby(db: Database, args: Sequence[bytes]) -> Any:
    return _add(db, args[0], -int(args[1]))


# Hashes


@command("HSET", writes=True)
def _hset(db: Database, args: Sequence[bytes]) -> Any:
    if len(args) % 2 == 0 or len(args) < 3:
        raise CommandError("ERR wrong number of arguments for 'hset' command")
    fields = db.made(args[0], Hash)
    before = len(fields)
    fields.update(zip(args[1::2], args[2::2], strict=True))
    return len(fields) - before


@command("HSETNX", writes=True)
def _hsetnx(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.made(args[0], Hash)
    if args[1] in fields:
        return 0
    fields[args[1]] = args[2]
    return 1


@command("HGET")
def _hget(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.typed(args[0], Hash)
    return fields.get(args[1]) if fields else None


@command("HMGET")
def _hmget(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.typed(args[0], Hash)
    return [fields.get(name) for name in args[1:]] if fields else [None] * (len(args) - 1)


@command("HGETALL")
def _hgetall(db: Database, args: Sequence[bytes]) -> Any:
    return [part for pair in (db.typed(args[0], Hash) or {}).items() for part in pair]


@command("HKEYS")
def _hkeys(db: Database, args: Sequence[bytes]) -> Any:
    return list(db.typed(args[0], Hash) or ())


@command("HLEN")
def _hlen(db: Database, args: Sequence[bytes]) -> Any:
    return len(db.typed(args[0], Hash) or ())


@command("HDEL", writes=True)
def _hdel(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.typed(args[0], Hash)
    if fields is None:
        return 0
    removed = sum(fields.pop(name, None) is not None for name in args[1:])
    db.drop_if_empty(args[0], fields)
    return removed


@command("HINCRBY", writes=True)
def _hincrby(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.made(args[0], Hash)
    number = int(fields.get(args[1], b"0")) + int(args[2])
    fields[args[1]] = b"%d" % number
    return number


@command("HRANDFIELD")
def _hrandfield(db: Database, args: Sequence[bytes]) -> Any:
    fields = db.typed(args[0], Hash) or Hash()
    chosen = db.randomness.sample(list(fields), min(int(args[1]), len(fields)))
    return [part for name in chosen for part in (name, fields[name])] if len(args) > 2 else chosen


@command("HSCAN")
def _hscan(db: Database, args: Sequence[bytes]) -> Any:
    return [b"0", _hgetall(db, args)]


# Sets


@command("SADD", writes=True)
def _sadd(db: Database, args: Sequence[bytes]) -> Any:
    members = db.made(args[0], Members)
    before = len(members)
    members.update(dict.fromkeys(args[1:]))
    return len(members) - before


@command("SREM", writes=True)
def _srem(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], Members)
    if members is None:
        return 0
    before = len(members)
    for member in args[1:]:
        members.pop(member, None)
    removed = before - len(members)
    db.drop_if_empty(args[0], members)
    return removed


@command("SCARD")
def _scard(db: Database, args: Sequence[bytes]) -> Any:
    return len(db.typed(args[0], Members) or ())


@command("SMEMBERS")
def _smembers(db: Database, args: Sequence[bytes]) -> Any:
    return list(db.typed(args[0], Members) or ())


@command("SRANDMEMBER")
def _srandmember(db: Database, args: Sequence[bytes]) -> Any:
    members = list(db.typed(args[0], Members) or ())
    return db.randomness.sample(members, min(int(args[1]), len(members)))

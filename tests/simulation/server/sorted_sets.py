"""Implement the commands on sorted sets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from tests.simulation.server.commands import command, formatted
from tests.simulation.server.database import Database
from tests.simulation.server.replies import CommandError
from tests.simulation.server.values import SortedSet

_ADD_OPTIONS = (b"NX", b"XX", b"GT", b"LT", b"CH")
_HIGHEST_MEMBER = b"\xff" * 300


@command("ZADD", writes=True)
def _zadd(db: Database, args: Sequence[bytes]) -> Any:
    first = 1
    while args[first].upper() in _ADD_OPTIONS:
        first += 1
    options = {option.upper() for option in args[1:first]}
    if b"XX" in options and db.typed(args[0], SortedSet) is None:
        return 0
    members, added = db.made(args[0], SortedSet), 0
    for score, member in zip(args[first::2], args[first + 1 :: 2], strict=True):
        before, after = members.scores.get(member), float(score)
        if (before is None and b"XX" in options) or (before is not None and b"NX" in options):
            continue
        if before is not None and b"GT" in options and after <= before:
            continue
        added += before is None
        members.add(member, after)
    return added


@command("ZREM", writes=True)
def _zrem(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    if members is None:
        return 0
    removed = sum(members.remove(member) for member in args[1:])
    db.drop_if_empty(args[0], members)
    return removed


@command("ZCARD")
def _zcard(db: Database, args: Sequence[bytes]) -> Any:
    return len(db.typed(args[0], SortedSet) or ())


@command("ZSCORE")
def _zscore(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    score = members.scores.get(args[1]) if members else None
    return None if score is None else formatted(score)


@command("ZMSCORE")
def _zmscore(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    scores = [members.scores.get(member) if members else None for member in args[1:]]
    return [None if score is None else formatted(score) for score in scores]


def _bounds(members: SortedSet, low: bytes, high: bytes) -> slice:
    """Return which members have scores from `low` to `high`; `(` before a bound leaves it out."""
    if low[:1] == b"(":
        first = bisect_right(members.ordered, (float(low[1:]), _HIGHEST_MEMBER))
    else:
        first = bisect_left(members.ordered, (float(low), b""))
    if high[:1] == b"(":
        return slice(first, bisect_left(members.ordered, (float(high[1:]), b"")))
    return slice(first, bisect_right(members.ordered, (float(high), _HIGHEST_MEMBER)))


@command("ZCOUNT")
def _zcount(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return len(members.ordered[_bounds(members, args[1], args[2])]) if members else 0


def _shown(pairs: Sequence[tuple[float, bytes]], options: Sequence[bytes]) -> list[bytes]:
    """Return members, with `LIMIT` and `WITHSCORES` applied."""
    words = [option.upper() for option in options]
    if b"LIMIT" in words:
        offset, count = (int(number) for number in options[words.index(b"LIMIT") + 1 :][:2])
        pairs = pairs[offset:] if count < 0 else pairs[offset : offset + count]
    if b"WITHSCORES" in words:
        return [part for score, member in pairs for part in (member, formatted(score))]
    return [member for _, member in pairs]


@command("ZRANGEBYSCORE")
def _zrangebyscore(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return _shown(members.ordered[_bounds(members, args[1], args[2])], args[3:]) if members else []


@command("ZREVRANGEBYSCORE")
def _zrevrangebyscore(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return _shown(members.ordered[_bounds(members, args[2], args[1])][::-1], args[3:]) if members else []


def _ranks(length: int, first: bytes, last: bytes) -> slice:
    begin, end = int(first), int(last)
    begin = max(0, begin + length) if begin < 0 else begin
    end = end + length if end < 0 else end
    return slice(begin, max(begin, end + 1))


@command("ZRANGE")
def _zrange(db: Database, args: Sequence[bytes]) -> Any:
    options = {option.upper() for option in args[3:]}
    if {b"BYSCORE", b"REV"} <= options:
        return _zrevrangebyscore(db, args)
    if options & {b"BYSCORE", b"BYLEX", b"REV"}:
        raise CommandError(f"ERR the simulated ZRANGE does not know {args[3:]}")
    members = db.typed(args[0], SortedSet)
    return _shown(members.ordered[_ranks(len(members), args[1], args[2])], args[3:]) if members else []


@command("ZREVRANGE")
def _zrevrange(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return _shown(members.ordered[::-1][_ranks(len(members), args[1], args[2])], args[3:]) if members else []


def _remove(db: Database, key: bytes, members: SortedSet, gone: slice) -> int:
    removed = members.ordered[gone]
    for _, member in removed:
        del members.scores[member]
    del members.ordered[gone]
    db.drop_if_empty(key, members)
    return len(removed)


@command("ZREMRANGEBYSCORE", writes=True)
def _zremrangebyscore(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return _remove(db, args[0], members, _bounds(members, args[1], args[2])) if members else 0


@command("ZREMRANGEBYRANK", writes=True)
def _zremrangebyrank(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    return _remove(db, args[0], members, _ranks(len(members), args[1], args[2])) if members else 0


@command("ZPOPMIN", writes=True)
def _zpopmin(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    if members is None:
        return []
    score, member = members.ordered[0]
    members.remove(member)
    db.drop_if_empty(args[0], members)
    return [member, formatted(score)]


@command("ZRANDMEMBER")
def _zrandmember(db: Database, args: Sequence[bytes]) -> Any:
    members = db.typed(args[0], SortedSet)
    ordered = members.ordered if members else []
    return _shown(db.randomness.sample(ordered, min(int(args[1]), len(ordered))), args[2:])

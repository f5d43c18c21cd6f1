"""Which keys a test may leave in Redis: those declared to stay, those that expire, those that a replica will remove.

Every key of the namespace is held to its declaration in `lifecycle.store.keys`. A key that is not declared, has
another type, lacks its TTL or has lost its owner is a leak: on a server that runs for months it would stay for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lifecycle.store.keys import CONTROL_KEYS, CONTROL_TAG, SHARD_KEYS, Key
from lifecycle.store.transitions import Store


class Sends(Protocol):
    """Whatever a store sends its commands through."""

    async def execute(self, *args: Any) -> Any: ...

    async def nodes(self) -> Sequence[Sends]: ...


_TERMINAL = {"completed", "failed", "cancelled"}
_SCAN_COUNT = 1000


async def assert_no_leaks(store: Store, *, inflight_allowed: bool = False) -> None:
    """Fails with one line for each leak in the store's namespace.

    `inflight_allowed`: requests that have not ended belong to the test, and so does what they need. Else they are
    leaks themselves: a request that nobody ends keeps its keys for ever.
    """
    found = await leaks(store.commands, store.settings.namespace, inflight_allowed=inflight_allowed)
    assert not found, "left in Redis:\n  " + "\n  ".join(found)


async def leaks(commands: Sends, namespace: str, *, inflight_allowed: bool = False) -> list[str]:
    keyspace = await _Keyspace.scan(commands, namespace, inflight_allowed)
    return [f"{place.key}: {why}" for place in keyspace.places if (why := await _judge(keyspace, place))]


async def clear(commands: Sends, namespace: str) -> None:
    """Removes the namespace, so that a server shared by many tests stays small."""
    for key in await _scan(commands, namespace):
        await commands.execute("UNLINK", key)


async def _scan(commands: Sends, namespace: str) -> list[str]:
    found: set[str] = set()
    for node in await commands.nodes():
        cursor = b"0"
        while True:
            cursor, keys = await node.execute("SCAN", cursor, "MATCH", f"{namespace}:*", "COUNT", _SCAN_COUNT)
            found.update(key.decode() for key in keys)
            if int(cursor) == 0:
                break
    return sorted(found)


@dataclass(frozen=True)
class _Place:
    """One key, taken apart: the hash tag it lies under, its declaration and what follows the declared name."""

    key: str
    tag: str
    declared: Key | None
    suffix: str

    @property
    def prefix(self) -> str:
        return self.key.removesuffix((self.declared.name if self.declared else "") + self.suffix)


@dataclass
class _Keyspace:
    commands: Sends
    inflight_allowed: bool
    places: list[_Place] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)  # replicas that live, or that a reaper will still clean up
    inflight: set[str] = field(default_factory=set)  # requests that have not ended

    @classmethod
    async def scan(cls, commands: Sends, namespace: str, inflight_allowed: bool) -> _Keyspace:
        space = cls(commands, inflight_allowed)
        space.places = [_place(key, namespace) for key in await _scan(commands, namespace)]
        for place in space.places:
            if place.tag != CONTROL_TAG and place.declared is not None:
                if place.declared.name in ("frontends", "workers"):
                    space.owners |= _texts(await commands.execute("ZRANGE", place.key, 0, -1))
                elif place.declared.name == "pending_cleanup":
                    space.owners |= _texts(await commands.execute("HKEYS", place.key))
        for place in space.places:
            if place.declared is not None and place.declared.name == "request:":
                status = await commands.execute("HGET", place.key, "status")
                if status is None or status.decode() not in _TERMINAL:
                    space.inflight.add(place.suffix)
        return space


def _place(key: str, namespace: str) -> _Place:
    match = re.fullmatch(re.escape(namespace) + r":\{([^}]*)\}:(.*)", key, re.DOTALL)
    if match is None:
        return _Place(key, "", None, "")
    tag, rest = match[1], match[2]
    for declared in CONTROL_KEYS if tag == CONTROL_TAG else SHARD_KEYS:
        if rest == declared.name or (declared.name.endswith(":") and rest.startswith(declared.name)):
            return _Place(key, tag, declared, rest.removeprefix(declared.name))
    return _Place(key, tag, None, rest)


_Rule = Callable[[_Keyspace, _Place], Awaitable[str]]


async def _judge(space: _Keyspace, place: _Place) -> str:
    """Why this key is a leak, '' when it is none."""
    if place.declared is None:
        return "not declared in lifecycle/store/keys.py"
    kind = (await space.commands.execute("TYPE", place.key)).decode()
    if kind not in (place.declared.type, "none"):
        return f"is a {kind}, declared as a {place.declared.type}"
    return "" if kind == "none" else await RULES[place.declared.name](space, place)


async def _permanent(space: _Keyspace, place: _Place) -> str:
    return ""


async def _expires(space: _Keyspace, place: _Place) -> str:
    ttl_ms = await space.commands.execute("PTTL", place.key)
    return "has no TTL" if ttl_ms == -1 else ""


async def _expires_or_is_owned(space: _Keyspace, place: _Place) -> str:
    return "" if place.suffix in space.owners else await _expires(space, place)


async def _is_owned(space: _Keyspace, place: _Place) -> str:
    return "" if place.suffix in space.owners else f"its owner {place.suffix!r} neither lives nor waits to be reaped"


async def _expires_after_the_end(space: _Keyspace, place: _Place) -> str:
    if place.suffix not in space.inflight:
        return await _expires(space, place)
    return "" if space.inflight_allowed else "was not ended (if that is meant: @pytest.mark.leaves_inflight)"


async def _ends_with_the_request(space: _Keyspace, place: _Place) -> str:
    return "" if place.suffix in space.inflight else "outlived its request"


async def _members_are_inflight(space: _Keyspace, place: _Place) -> str:
    members = _texts(await space.commands.execute("ZRANGE", place.key, 0, -1))
    strays = {m for m in members if m.rpartition("|")[2] not in space.inflight}
    return f"holds requests that have ended: {sorted(strays)}" if strays else ""


async def _members_are_inflight_or_expire(space: _Keyspace, place: _Place) -> str:
    members = _texts(await space.commands.execute("ZRANGE", place.key, 0, -1))
    expiries = _texts(await space.commands.execute("ZRANGE", place.prefix + "expiries", 0, -1))
    expiring = {member.partition("|")[0] for member in expiries}
    strays = members - expiring - space.inflight
    return f"holds requests that nothing will trim: {sorted(strays)}" if strays else ""


async def _members_are_owned(space: _Keyspace, place: _Place) -> str:
    stray = _texts(await space.commands.execute("HKEYS", place.key)) - space.owners
    return f"has members of unknown replicas: {sorted(stray)}" if stray else ""


async def _sums_the_counts(space: _Keyspace, place: _Place) -> str:
    """Compare the sum that is kept with the counts of all frontends, the dead included."""
    sums: Counter[str] = Counter()
    for other in space.places:
        if other.declared is not None and other.declared.name == "counts:" and other.prefix == place.prefix:
            sums.update(await _numbers(space, other.key))
    kept = {name: number for name, number in (await _numbers(space, place.key)).items() if number}
    return "" if kept == dict(sums) else f"has {kept}, while the counts of frontends have {dict(sums)}"


async def _numbers(space: _Keyspace, key: str) -> dict[str, int]:
    flat = await space.commands.execute("HGETALL", key)
    return {name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


async def _members_have_kept_content(space: _Keyspace, place: _Place) -> str:
    owners = _texts(await space.commands.execute("HKEYS", place.key))
    strays = {owner for owner in owners if not await space.commands.execute("EXISTS", f"{place.prefix}stored:{owner}")}
    return f"holds owners without kept content: {sorted(strays)}" if strays else ""


async def _members_are_queued(space: _Keyspace, place: _Place) -> str:
    strays = []
    for rid in _texts(await space.commands.execute("ZRANGE", place.key, 0, -1)):
        if await space.commands.execute("HGET", f"{place.prefix}request:{rid}", "status") != b"queued":
            strays.append(rid)
    return f"holds requests that do not wait: {strays}" if strays else ""


async def _has_flows(space: _Keyspace, place: _Place) -> str:
    """Compare the owners of a level with the flows in it."""
    owners = _texts(await space.commands.execute("ZRANGE", place.key, 0, -1))
    priority, _, model = place.suffix.partition("|")
    flows = [flow for flow in _flows(space, place.prefix) if (flow.model, flow.priority) == (model, priority)]
    found = {flow.owner for flow in flows}
    return "" if owners == found else f"has owners {sorted(owners)}, while {sorted(found)} wait"


async def _has_levels(space: _Keyspace, place: _Place) -> str:
    priorities = _texts(await space.commands.execute("ZRANGE", place.key, 0, -1))
    found = {flow.priority for flow in _flows(space, place.prefix) if flow.model == place.suffix}
    return "" if priorities == found else f"has priorities {sorted(priorities)}, while {sorted(found)} wait"


async def _counts_what_is_queued(space: _Keyspace, place: _Place) -> str:
    found: Counter[str] = Counter()
    for flow in _flows(space, place.prefix):
        if flow.model == place.suffix:
            found[flow.owner] += await space.commands.execute("ZCARD", flow.key)
    kept = await _numbers(space, place.key)
    return "" if kept == dict(found) else f"counts {kept}, while {dict(found)} wait"


async def _counts_shares(space: _Keyspace, place: _Place) -> str:
    """Compare the counts under further limits with the shares in the records of what waits."""
    found: Counter[str] = Counter()
    for flow in _flows(space, place.prefix):
        for rid in await space.commands.execute("ZRANGE", flow.key, 0, -1) if flow.model == place.suffix else ():
            share = await space.commands.execute("HGET", f"{place.prefix}request:{rid.decode()}", "share")
            if share is not None:
                tokens, size = map(int, share.split())
                found.update({"n": 1, "t": tokens, "b": size, f"t|{flow.owner}": tokens, f"b|{flow.owner}": size})
    kept = {name: number for name, number in (await _numbers(space, place.key)).items() if number}
    return "" if kept == dict(+found) else f"counts {kept}, while {dict(found)} wait"


class _Flow(NamedTuple):
    key: str
    priority: str
    owner: str
    model: str


def _flows(space: _Keyspace, prefix: str) -> list[_Flow]:
    found = []
    for place in space.places:
        if place.declared is not None and place.declared.name == "flow:" and place.prefix == prefix:
            priority, length, rest = place.suffix.split("|", 2)
            found.append(_Flow(place.key, priority, rest[: int(length)], rest[int(length) + 1 :]))
    return found


async def _counts_what_waits(space: _Keyspace, place: _Place) -> str:
    waiting: Counter[str] = Counter()
    for flow in _flows(space, place.prefix):
        for rid in await space.commands.execute("ZRANGE", flow.key, 0, -1):
            waiting[flow.model] += await space.commands.execute("STRLEN", f"{place.prefix}body:{rid.decode()}")
    kept = await _numbers(space, place.key)
    return "" if kept == dict(+waiting) else f"counts other bytes than wait: {kept}, not {dict(waiting)}"


async def _members_are_workers(space: _Keyspace, place: _Place) -> str:
    stray = _texts(await space.commands.execute("ZRANGE", place.key, 0, -1)) - space.owners
    return f"holds workers that neither live nor wait to be reaped: {sorted(stray)}" if stray else ""


RULES: dict[str, _Rule] = {
    "request:": _expires_after_the_end,
    "tokens:": _expires_after_the_end,
    "body:": _expires_after_the_end,
    "stored:": _expires,
    "stored_bytes:": _expires,
    "item:": _expires,
    "overfull": _members_have_kept_content,
    "readers:": _ends_with_the_request,
    "lost_start:": _expires,
    "named:": _expires,
    "levels:": _has_levels,
    "level:": _has_flows,
    "flow:": _members_are_queued,
    "virtual_times:": _expires,
    "queue:": _expires,
    "queued:": _counts_what_is_queued,
    "shares:": _counts_shares,
    "waiting:": _members_are_workers,
    "taken": _members_are_owned,
    "queued_bytes": _counts_what_waits,
    "inflight:": _is_owned,
    "counts:": _is_owned,
    "reading:": _is_owned,
    "group_counts": _sums_the_counts,
    "served": _members_are_owned,
    "running:": _is_owned,
    "pending_cancellations:": _is_owned,
    "fenced:": _expires,
    "created": _members_are_inflight_or_expire,
    "active": _members_are_inflight,
    "deadlines": _members_are_inflight,
    "owned:": _members_are_inflight_or_expire,
    "expiries": _permanent,
    "quota_slots:": _expires,
    "ended_slots:": _expires,
    "with_parent": _members_are_inflight,
    "children:": _expires,
    "ended_parent:": _expires,
    "webhooks": _expires,
    "webhook:": _expires,
    "totals": _permanent,
    "ticks": _members_are_owned,
    "confirmed": _expires,
    "epoch": _permanent,
    "frontends": _permanent,
    "workers": _permanent,
    "replica:": _expires,
    "models": _permanent,
    "config": _permanent,
    "roster": _permanent,
    "changes": _permanent,
    "versions": _permanent,
    "left_replicas": _permanent,
    "expired_replicas": _permanent,
    "pending_cleanup": _permanent,
    "secret": _permanent,
    "clock": _permanent,
}
"""One rule for each declared key, the code to what `Key.life` says in words; a test holds the two together."""


def _texts(values: list[bytes]) -> set[str]:
    return {value.decode() for value in values}

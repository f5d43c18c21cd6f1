"""Check a sample of the Redis keys: each must have a TTL, or an owner that will delete it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lifecycle.cli.doctor.finding import Finding, ok, warn
from lifecycle.queries import cluster
from lifecycle.store.keys import CONTROL_KEYS, SHARD_KEYS, Key
from lifecycle.store.transitions import Store

_SCAN_CALLS = 50
_SCAN_COUNT = 500
_SAMPLE = 2000
_SHOWN = 3
_OF_A_REQUEST = frozenset({"request:", "body:", "tokens:", "readers:"})
_OF_A_REPLICA = frozenset({"inflight:", "counts:", "running:", "pending_cancellations:"})
_EXPIRING = frozenset(
    {"replica:", "fenced:", "named:", "item:", "quota_slots:", "ended_slots:", "children:", "ended_parent:"}
    | {"stored:", "stored_bytes:", "webhooks", "webhook:"}
)


class _Place(NamedTuple):
    """A Redis key, split into its prefix, its declaration and its owner."""

    key: str
    prefix: str
    declared: Key | None
    owner: str  # the part after the declared name: a request, a replica or a model


async def check_keys(store: Store) -> list[Finding]:
    """Return one finding on the sampled keys. Raises StoreUnavailable."""
    keys, complete = await _sample(store)
    strays = await _find_strays(store, keys)
    looked_at = f"{len(keys)} keys" + ("" if complete else " (a sample)")
    if not strays:
        return [ok("keys", f"{looked_at}: each expires or has an owner")]
    shown = ", ".join(strays[:_SHOWN]) + (", …" if len(strays) > _SHOWN else "")
    advice = "please report this; 'lifecycle doctor --repair' lets those of requests expire, UNLINK removes the others"
    return [warn("keys", f"{looked_at}, {len(strays)} without TTL or owner: {shown}", advice)]


async def expire_strays(store: Store) -> None:
    """Let the sampled keys of requests expire that nothing would remove. Raises StoreUnavailable."""
    keys, _ = await _sample(store)
    for key in await _find_strays(store, keys):
        declared = _place(store, key).declared
        if declared is not None and declared.name in _OF_A_REQUEST:
            await store.command("PEXPIRE", key, int(store.settings.retention_secs * 1000))


async def _find_strays(store: Store, keys: Sequence[str]) -> list[str]:
    # Owners are read after the scan, so that the owner of each key that was found is known.
    owners = await cluster.known_replicas(store)
    return [key for key in keys if await _is_stray(store, _place(store, key), owners)]


async def _sample(store: Store) -> tuple[list[str], bool]:
    found, calls = set[str](), 0
    async for keys in store.scan(store.settings.namespace + ":*", _SCAN_COUNT):
        found.update(keys)
        calls += 1
        if calls == _SCAN_CALLS or len(found) > _SAMPLE:
            return sorted(found)[:_SAMPLE], False
    return sorted(found), True


def _place(store: Store, key: str) -> _Place:
    groups = [(store.keys.control, CONTROL_KEYS), *((prefix, SHARD_KEYS) for prefix in store.keys.prefixes)]
    for prefix, declarations in groups:
        rest = key.removeprefix(prefix)
        for declared in declarations if key.startswith(prefix) else ():
            if rest == declared.name or (declared.name.endswith(":") and rest.startswith(declared.name)):
                return _Place(key, prefix, declared, rest.removeprefix(declared.name))
    return _Place(key, "", None, "")


async def _is_stray(store: Store, place: _Place, owners: set[str]) -> bool:
    if place.declared is None:
        return True
    name = place.declared.name
    if name in _OF_A_REPLICA and place.owner in owners:
        return False
    if name in _OF_A_REQUEST:
        # Read before the TTL: a request that ends in between has its TTL by then.
        if await store.command("ZSCORE", place.prefix + "active", place.owner) is not None:
            return False
    elif name not in _OF_A_REPLICA | _EXPIRING:
        return False
    return int(await store.command("PTTL", place.key)) == -1

"""Reads INFO of the Redis servers, and warns of a configuration that loses live requests."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.store.transitions import Store

log = logging.getLogger(__name__)

FIT_POLICY = "noeviction"
EVICTION_ADVICE = "it removes live requests when memory is full: CONFIG SET maxmemory-policy noeviction"

Info = Mapping[str, str]


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of a reply of INFO by name."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs}


async def read_infos(store: Store) -> list[Info]:
    """Return INFO of every server that holds a part of the data.

    Raises StoreUnavailable when a server cannot be reached, or the user may not call INFO.
    """
    replies = [await node.execute("INFO") for node in await store.commands.nodes()]
    return [parse_info(reply.decode(errors="replace")) for reply in replies]


def memory_room(info: Info, share: float = 1.0) -> float:
    """Return how many bytes a server's data may still grow until `share` of its `maxmemory` is used.

    Infinite without a limit, or when the server does not say.
    """
    limit, used = int(info.get("maxmemory", "0")), int(info.get("used_memory", "0"))
    if not limit or not used:
        return math.inf
    return limit * share - (used - int(info.get("mem_not_counted_for_evict", "0")))


def eviction_policy(info: Info) -> str:
    """Return a server's `maxmemory-policy`, or `unknown` when it does not say."""
    return info.get("maxmemory_policy", "unknown")


async def warn_of_eviction(store: Store) -> None:
    """Log a warning if a server may evict Redis keys. A server that does not say, or cannot be asked, is ignored."""
    try:
        policies = sorted({eviction_policy(info) for info in await read_infos(store)} - {FIT_POLICY, "unknown"})
    except (StoreError, RedisError) as failure:
        tasks.check_cancelled()
        log.debug("The eviction policy of Redis could not be read: %s", failure)
        return
    if policies:
        log.warning("The maxmemory-policy of Redis is %s: %s", ", ".join(policies), EVICTION_ADVICE)

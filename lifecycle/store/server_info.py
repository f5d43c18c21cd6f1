"""What the servers say of themselves, and whether they may be trusted with live requests."""

from __future__ import annotations

import logging
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
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs}


async def read_infos(store: Store) -> list[Info]:
    """INFO of every server that holds a part of the data. Raises StoreUnavailable, RedisError when it is forbidden."""
    replies = [await node.execute("INFO") for node in await store.commands.nodes()]
    return [parse_info(reply.decode(errors="replace")) for reply in replies]


def eviction_policy(info: Info) -> str:
    return info.get("maxmemory_policy", "unknown")


async def warn_of_eviction(store: Store) -> None:
    """One line in the log if a server may remove keys by itself; nothing if it does not say, or cannot be asked."""
    try:
        policies = sorted({eviction_policy(info) for info in await read_infos(store)} - {FIT_POLICY, "unknown"})
    except (StoreError, RedisError) as failure:
        tasks.check_cancelled()
        log.debug("Redis's eviction policy is not known: %s", failure)
        return
    if policies:
        log.warning("Redis's maxmemory-policy is %s: %s", ", ".join(policies), EVICTION_ADVICE)

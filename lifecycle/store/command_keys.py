"""Tell which Redis key of a command decides about the node of a Redis Cluster that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_KEYLESS = frozenset(
    {"PING", "ECHO", "TIME", "INFO", "CONFIG", "CLIENT", "SCAN", "SCRIPT", "CLUSTER", "COMMAND", "PUBLISH"}
)
_KEY_SECOND = frozenset({"XINFO", "OBJECT", "MEMORY"})
_KEY_THIRD = frozenset({"EVAL", "EVALSHA"})
_KEY_BEHIND_STREAMS = frozenset({"XREAD"})


def key_of(args: Sequence[Any]) -> str | bytes | None:
    """Return the Redis key that decides which node gets a command, or None when any node can execute it."""
    name = str(args[0]).upper()
    if name in _KEYLESS:
        return None
    if name in _KEY_BEHIND_STREAMS:
        position = args.index("STREAMS") + 1
    else:
        position = 3 if name in _KEY_THIRD else 2 if name in _KEY_SECOND else 1
    key: str | bytes = args[position]
    return key

"""Provide descriptors for the connections of a frontend: each open file and connection of the process needs one."""

from __future__ import annotations

import logging
import os
import resource

log = logging.getLogger(__name__)

_MOST = 1 << 20  # also where the system has no hard limit
_KEPT = 64  # for what the process opens later, such as connections to Redis
_OWN = "/dev/fd"


def raise_limit() -> int:
    """Raise this process's soft limit of descriptors to the hard limit. Return the limit that then applies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as failure:  # macOS has a lower limit of its own
            log.debug("the limit of open files stays at %d: %s", soft, failure)
        else:
            soft = wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft


def most_connections(limit: int) -> int:
    """Return how many connections of clients fit beside what this process has open now, and some more of its own."""
    try:
        own = len(os.listdir(_OWN))
    except OSError:
        own = _KEPT
    return max(1, limit - own - min(_KEPT, limit // 8))


def warn_if_low(limit: int, connections: int, max_readers: int) -> None:
    """Log a warning if there are fewer descriptors than a frontend with this many streams needs."""
    if connections < max_readers:
        log.warning(
            "the limit of open files (descriptors) is %d, which leaves %d for clients, too few for "
            "LIFECYCLE_MAX_READERS=%d: raise the limit with `ulimit -Hn` or your service manager, or lower the setting",
            limit,
            connections,
            max_readers,
        )

"""Keep a replica from following its primary, without stopping it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.soak.operator import operator


@contextmanager
def lagging(replica: EmbeddedRedis, primary: EmbeddedRedis) -> Iterator[None]:
    """Give the replica a password that its primary does not take, and close its link."""
    with operator(replica) as command:
        command.config(masterauth="wrong", masteruser="nobody")
    with operator(primary) as command:
        command("CLIENT", "KILL", "TYPE", "replica")
    try:
        yield
    finally:
        with operator(replica) as command:  # a Sentinel that promotes it closes the connections of all others
            command.config(masterauth="", masteruser="")

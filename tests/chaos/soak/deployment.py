"""Define what the soak knows of a deployment of Redis: how it is started, and which faults it has."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.links import Links
from tests.chaos.soak.fault import Fault

DURABLE = {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
"""Settings with which Redis keeps what it has answered when it is killed."""


class Deployment(ABC):
    """One kind of deployment, which the replicas reach through fault proxies."""

    shards = 4

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL for the replicas."""

    @abstractmethod
    def primaries(self) -> Sequence[EmbeddedRedis]:
        """Return the servers that take writes now."""

    @abstractmethod
    async def open_links(self) -> Links:
        """Open the links of one replica that is to be started."""

    @abstractmethod
    def faults(self, bench: Bench, dice: random.Random) -> list[Fault]:
        """Return the faults of the servers and of the links to them."""

    @abstractmethod
    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the servers until the block ends."""

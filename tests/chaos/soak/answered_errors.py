"""Let Redis answer commands with errors for which a server cannot be given a real cause in a moment.

The replicas' links are led to a relay that answers every command but those that open a connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck
from tests.refusing_redis import RefusingRedis

_ERRORS = (
    "LOADING Redis is loading the dataset in memory",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "NEWPREFIX an error of a version that does not exist yet",
)


class AnsweredErrors:
    """For a deployment whose replicas each have a proxy, in front of `server`."""

    def __init__(self, bench: Bench, server: Callable[[], EmbeddedRedis], dice: random.Random) -> None:
        self._bench = bench
        self._server = server
        self._dice = dice

    def faults(self) -> list[Fault]:
        return [Fault(f"redis answers: {error.partition(' ')[0]}", partial(self._answer, error)) for error in _ERRORS]

    async def _answer(self, error: str) -> Struck:
        secs = self._dice.uniform(0.3, 3.0)
        links = [self._bench.link(process) for process in (*self._bench.frontends, *self._bench.workers)]
        async with RefusingRedis(self._server().port) as relay:
            relay.refuse(error)
            for link in links:
                link.lead_to(relay.port)
            await asyncio.sleep(secs)
            for link in links:
                link.restore()
            refused = relay.refused.total()
        return Struck(f"{secs:.1f} s, {refused} commands")

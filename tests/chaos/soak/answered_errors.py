"""Let Redis answer with errors that have no real cause which is over in a moment, or none without a failover.

The replicas' links are led to a relay that answers every command but those that open a connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
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
    "NOSCRIPT No matching script.",
    "BUSYGROUP Consumer Group name already exists",
    "NEWPREFIX an error of a version that does not exist yet",
)
_WITH_A_REAL_CAUSE = {
    "MISCONF": "MISCONF Errors writing to the AOF file: No space left on device",
    "BUSY": "BUSY The server is busy running a script.",
    "NOAUTH": "NOAUTH Authentication required.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
}
"""Name the errors that `Refusals` causes where it can."""


class AnsweredErrors:
    """`servers()`: those that answer so, all at once."""

    def __init__(self, bench: Bench, servers: Callable[[], Sequence[EmbeddedRedis]], dice: random.Random) -> None:
        self._bench = bench
        self._servers = servers
        self._dice = dice

    def faults(self, *, also: Collection[str] = ()) -> list[Fault]:
        """Return them, `also` those that have no real cause in this deployment."""
        errors = [*_ERRORS, *(error for name, error in _WITH_A_REAL_CAUSE.items() if name in also)]
        return [Fault(f"redis answers: {error.partition(' ')[0]}", partial(self._answer, error)) for error in errors]

    async def _answer(self, error: str) -> Struck:
        secs, relays = self._dice.uniform(0.3, 3.0), list[RefusingRedis]()
        replicas = [self._bench.links[process] for process in (*self._bench.frontends, *self._bench.workers)]
        async with AsyncExitStack() as stack:
            for port in [server.port for server in self._servers()]:
                relay = await stack.enter_async_context(RefusingRedis(port))
                relays.append(relay)
                relay.refuse(error)
                for links in replicas:
                    link = links.to(port)
                    link.lead_to(relay.port)
                    stack.callback(link.restore)
            await asyncio.sleep(secs)
        return Struck(f"{secs:.1f} s, {sum(relay.refused.total() for relay in relays)} commands")

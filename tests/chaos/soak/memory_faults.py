"""Fill the memory of Redis with the bodies of requests that wait for their workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.server_info import parse_info
from tests.chaos.audit.asked import ask_for
from tests.chaos.audit.recorder import Recorder
from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.operator import operator
from tests.cluster import Process

_ROOM_BYTES = 4_000_000
_BODY_BYTES = 300_000
_REQUESTS = 40


class MemoryFaults:
    """`workers()`: those of the model, which stand still meanwhile. The other models' streams go on beside them."""

    def __init__(
        self,
        bench: Bench,
        recorder: Recorder,
        servers: Callable[[], Sequence[EmbeddedRedis]],
        workers: Callable[[], Sequence[Process]],
        model: tuple[str, str],
        dice: random.Random,
    ) -> None:
        """`model`: its name, and the kind of its text."""
        self._bench = bench
        self._recorder = recorder
        self._servers = servers
        self._workers = workers
        self._model = model
        self._dice = dice
        self._begun = 0

    def faults(self) -> list[Fault]:
        return [Fault("memory filled with queued bodies", self._fill)]

    async def _fill(self) -> Struck:
        secs = self._dice.uniform(0.5, 3.0)
        victims = list(self._workers())
        url = self._dice.choice(self._bench.frontends).url
        over = asyncio.Event()
        with ExitStack() as stack:
            for victim in victims:
                self._bench.freeze(victim)
                stack.callback(self._bench.thaw, victim)
            for server in self._servers():
                command = stack.enter_context(operator(server))
                used = int(parse_info(command("INFO", "memory"))["used_memory"])
                command.config(maxmemory=str(used + _ROOM_BYTES))
                stack.callback(command.config, maxmemory="0")
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(self._client(url, over), name="a large body") for _ in range(_REQUESTS)]
                await asyncio.sleep(secs)
                over.set()
        accepted = sum(client.result() for client in clients)
        return Struck(f"{secs:.1f} s, {accepted} of {_REQUESTS} bodies were queued")

    async def _client(self, url: str, over: asyncio.Event) -> bool:
        """Return whether the request was accepted; the client disconnects when the time is over."""
        self._begun += 1
        asked = ask_for(*self._model, 1)
        async with self._recorder.admit(url, f"large-{self._begun}", asked, padding_bytes=_BODY_BYTES) as exchange:
            await over.wait()
        return exchange.call.code == 200

"""A cluster that can be broken in every way: each process reaches Redis through a fault proxy of its own."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from lifecycle.errors import StoreUnavailable
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.settings import Settings
from lifecycle.store import script_loader
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from tests import sse
from tests.chaos.invariants import Invariants
from tests.chaos.links import Links, OpenLinks
from tests.chaos.proxy import FaultProxy
from tests.chaos.readings import Reading
from tests.cluster import Cluster, Process
from tests.processes import wait_until_stopped
from tests.sse import Stream
from tests.waiting import wait_until

TERMINAL = ("completed", "failed", "cancelled")


@dataclass
class Bench(Cluster):
    """`store` is the direct line to Redis, for commands and for looking; `links` are the processes' lines."""

    store: Store = field(kw_only=True)
    invariants: Invariants = field(kw_only=True)
    links: dict[Process, Links] = field(default_factory=dict)
    open_links: OpenLinks | None = None  # without it, the processes reach Redis by themselves
    serving: list[Process] = field(default_factory=list)  # frontends that a balancer would send requests to
    environment: dict[str, str] = field(default_factory=dict)  # of the processes that are started from now on

    def link(self, process: Process) -> FaultProxy:
        """Return a process's line to a single server."""
        return self.links[process].only

    async def execute(self, *args: Any) -> Any:
        """A command to Redis, past every proxy."""
        return await self.store.commands.execute(*args)

    def key(self, name: str, rid: str = "") -> str:
        """`key("tokens:" + rid, rid)`: where it lies."""
        return self.store.keys.prefix_of(rid) + name

    # Processes

    async def kill(self, process: Process) -> None:
        """`kill -9`; it is no longer asked."""
        await process.kill()
        self.forget(process)

    def forget(self, process: Process) -> None:
        for group in (self.frontends, self.workers, self.serving):
            if process in group:
                group.remove(process)

    def freeze(self, process: Process) -> None:
        """Returns once it stands still."""
        process.signal(signal.SIGSTOP)
        wait_until_stopped(process.pid)

    def thaw(self, process: Process) -> None:
        process.signal(signal.SIGCONT)

    async def ids(self, process: Process) -> set[str]:
        """The ids under which this process holds a lease now; asked past every proxy."""
        roster = await self.store.roster()
        own = {entry.id for entry in roster.replicas if f'"pid":{process.pid},'.encode() in entry.about}
        return {member for member in await cluster.leases(self.store) if replica_of(member) in own}

    async def comes_back(self, process: Process, was: set[str]) -> str:
        """The new id under which it lives after it was fenced."""

        async def new() -> set[str]:
            return await self.ids(process) - was

        found = await wait_until(new, timeout=20, what="coming back under a new id")
        return str(next(iter(found)))

    async def away(self, replica: str) -> None:
        """Wait until that id holds no lease."""

        async def gone() -> bool:
            return replica not in await cluster.leases(self.store)

        await wait_until(gone, timeout=20, what=f"{replica} without a lease")

    async def renew_for(self, secs: float) -> None:
        """Wait until every lease of now has been renewed for so long. Fails when one of them is gone."""
        before = await cluster.leases(self.store)

        async def renewed() -> bool:
            now = await cluster.leases(self.store)
            assert before.keys() <= now.keys(), f"{before.keys() - now.keys()} were expired"
            return all(now[member] >= ends_at + secs for member, ends_at in before.items())

        await wait_until(renewed, timeout=secs + 15, what="renewed leases")

    # Requests

    @asynccontextmanager
    async def post(self, frontend: Process, body: dict[str, Any], rid: str, **headers: str) -> AsyncIterator[Stream]:
        """A client; what it reads is held to the promises at the end."""
        async with sse.post(self.http, frontend.url, body, X_Request_Id=rid, **headers) as stream:
            with self._reading(Reading(rid, stream)):
                yield stream

    @asynccontextmanager
    async def resume(self, frontend: Process, rid: str, after: str = "") -> AsyncIterator[Stream]:
        async with sse.resume(self.http, frontend.url, rid, after) as stream:
            with self._reading(Reading(rid, stream, after)):
                yield stream

    @contextmanager
    def _reading(self, reading: Reading) -> Iterator[None]:
        self.invariants.readings.append(reading)
        try:
            yield
        finally:
            reading.over = True

    async def status(self, rid: str, *wanted: str, timeout: float = 15.0) -> dict[str, str]:
        """The record's fields, straight from Redis, once its status is one of these. Redis may still be away."""
        names = ("status", "error_type", "worker", "frontend", "attempt", "output_tokens", "cancel_mode")
        key = self.key("request:" + rid, rid)
        seen: dict[str, str] = {}

        async def reached() -> bool:
            try:
                values = await self.execute("HMGET", key, *names)
            except StoreUnavailable:
                return False
            seen.update({name: (value or b"").decode() for name, value in zip(names, values, strict=True)})
            return seen["status"] in wanted

        try:
            await wait_until(reached, timeout=timeout)
        except AssertionError:
            raise AssertionError(f"{rid} did not get {' or '.join(wanted)} within {timeout:g} s: {seen}") from None
        return seen

    async def ended(self, rid: str, timeout: float = 15.0) -> dict[str, str]:
        return await self.status(rid, *TERMINAL, timeout=timeout)

    async def quiet(self, timeout: float = 15.0) -> None:
        """Wait until nothing is inflight, in Redis and on the gauge."""

        async def settled() -> bool:
            return await self.invariants.look() and not self.invariants.unsettled and self.invariants.inflight == 0

        try:
            await wait_until(settled, timeout=timeout)
        except AssertionError:
            seen = self.invariants
            raise AssertionError(
                f"after {timeout:g} s {sorted(seen.unsettled)[:10]} of {len(seen.unsettled)} have not ended, "
                f"the gauge shows {seen.inflight}; {seen.unanswered} readings of Redis failed; {seen.violations[:3]}"
            ) from None

    # Starting

    async def frontend(self, **overrides: Any) -> Process:
        process = await super().frontend(**overrides)
        self.serving.append(process)
        return process

    async def _joined(self, process: Process) -> bool:
        self._must_run(process)
        try:
            roster = await self.store.roster()
        except StoreUnavailable:  # what was broken before, or a busy machine
            return False
        own = [entry.about for entry in roster.replicas if f'"pid":{process.pid},'.encode() in entry.about]
        return any(b'"state":"starting"' not in about for about in own)

    async def _start(self, role: str, argv: list[str], overrides: dict[str, Any]) -> Process:
        if self.open_links is None or "redis_url" in overrides:  # it reaches Redis by itself
            return await super()._start(role, argv, overrides)
        links = await self.open_links()
        try:
            process = await super()._start(role, argv, {**overrides, "redis_url": links.url})
        except BaseException:
            await links.close()
            raise
        self.links[process] = links
        return process

    def _environment(self, settings: Settings) -> dict[str, str]:
        return super()._environment(settings) | self.environment

    async def close(self) -> None:
        """A process must end by itself when it is told to and nothing is broken any more."""
        for links in self.links.values():
            links.restore()
        try:
            await super().close()
        finally:
            for links in self.links.values():
                await links.close()


@asynccontextmanager
async def open_bench(
    settings: Settings,
    directory: Path,
    *,
    frontends: int = 1,
    workers: int = 1,
    proxied: bool = True,
    open_links: OpenLinks | None = None,
    **watching: Any,
) -> AsyncIterator[Bench]:
    """Run a cluster with echo workers. `watching` goes to the Invariants, which hold at the end or fail the test.

    Not `proxied`, for load that one process could not pass on: no link can be broken then. `open_links` are those to a
    deployment of several servers.
    Every script is loaded beforehand, so that a rule which waits for one meets the call that executes.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        for node in await store.commands.nodes():
            for name in script_loader.names():
                await node.execute("SCRIPT", "LOAD", script_loader.load(name).source)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=30, trust_env=False, limits=limits))
        if open_links is None and proxied:
            open_links = partial(Links.to_one, settings.redis_url)
        invariants = Invariants(store, **watching)
        bench = Bench(settings, directory, http, store=store, invariants=invariants, open_links=open_links)
        stack.push_async_callback(bench.close)
        for _ in range(frontends):
            await bench.frontend()
        for _ in range(workers):
            await bench.worker()
        async with bench.invariants:
            yield bench
            await bench.invariants.settle()  # while there is somebody to mend things
            await bench.close()  # what a process does last is looked at too

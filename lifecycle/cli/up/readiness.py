"""Check whether the processes that `up` has started are ready, over HTTP and in Redis, without an API key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import httpx2

from lifecycle.local.supervisor import Condition
from lifecycle.queries import cluster
from lifecycle.records import Replica
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import models_of, workers_of
from lifecycle.types import ReplicaState

_TIMEOUT_SECS = 2.0


class Readiness:
    """Provide the conditions for `Supervisor.wait_ready`. Use it with `async with`."""

    def __init__(self, urls: Sequence[str], settings: Settings) -> None:
        self._urls = urls
        self._settings = settings
        self._http = httpx2.AsyncClient(timeout=_TIMEOUT_SECS, trust_env=False)
        self._stack = AsyncExitStack()
        self._store: Store

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._http.aclose)
        self._store = await self._stack.enter_async_context(open_store(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def joined(self, pids: Mapping[str, int]) -> dict[str, Condition]:
        """Return one condition for each child under its name: a frontend is ready, a worker is in the cluster.

        `pids` maps the names of the children, frontends first, to their process ids.
        """
        frontends = len(self._urls)
        conditions: dict[str, Condition] = {}
        for number, (name, pid) in enumerate(pids.items()):
            is_frontend = number < frontends
            conditions[name] = (
                partial(self._frontend_ready, self._urls[number], pid)
                if is_frontend
                else partial(self._has_joined, pid)
            )
        return conditions

    def started(self, pids: Mapping[str, int], models: Sequence[str]) -> dict[str, Condition]:
        """Return a condition for each worker of `pids` under its name, that its engine runs, and for the models."""
        workers = list(pids.items())[len(self._urls) :]
        conditions: dict[str, Condition] = {name: partial(self._has_started, pid) for name, pid in workers}
        conditions["model " + ", ".join(models)] = partial(self._are_served, frozenset(models))
        return conditions

    async def _frontend_ready(self, url: str, pid: int) -> bool:
        """Return whether this very process answers on the port, and not another one."""
        answer = await self._http.get(url + "/health")
        return answer.status_code == httpx2.codes.OK and any(
            replica.id == answer.json()["frontend"] for replica in await self._replicas(pid)
        )

    async def _has_joined(self, pid: int) -> bool:
        return bool(await self._replicas(pid))

    async def _has_started(self, pid: int) -> bool:
        return any(replica.state != ReplicaState.STARTING for replica in await self._replicas(pid))

    async def _are_served(self, models: frozenset[str]) -> bool:
        workers = workers_of(await self._store.roster(), self._store.settings.lease_secs)
        return models <= models_of(workers).keys()

    async def _replicas(self, pid: int) -> list[Replica]:
        return [replica for replica in await cluster.replicas(self._store) if replica.pid == pid]

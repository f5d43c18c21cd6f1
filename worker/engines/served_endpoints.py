"""Know which endpoints an upstream serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import httpx2

from lifecycle.aio import tasks
from lifecycle.execution.offered_endpoints import DEFAULT_ENDPOINTS
from lifecycle.types import COUNT_TOKENS, TRANSLATABLE
from worker.engines.endpoint_probe import Verdict, probe
from worker.engines.upstream import Upstream
from worker.engines.upstream_calls import CALLS

log = logging.getLogger(__name__)

_NOWHERE = "/lifecycle-probe"  # behind the base URL; no server has it
_IF_TOLD = (*TRANSLATABLE, COUNT_TOKENS)  # served only if the upstream says so
_TRIES = 3  # after which an upstream that does not tell is left alone until it has been away


class ServedEndpoints:
    """Ask one upstream for its endpoints. Chat and text completions are assumed until it has told them.

    An endpoint about which its answer says nothing is assumed to be served, so that a call gets the upstream's own
    words. Two kinds are not: one that can be translated, because the translation serves its calls in any case, and the
    counting of tokens, which belongs to one of these.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.names: Collection[str] = DEFAULT_ENDPOINTS
        self._upstream = upstream
        self._tries = _TRIES
        self._learning: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Note that the upstream was away. It may be another server when it comes back, and is asked again."""
        self._tries = _TRIES

    async def learn(self, client: httpx2.AsyncClient) -> None:
        """Ask the upstream now. It takes some milliseconds as a rule, and 12 seconds at most."""
        self._tries -= 1
        found = await self._find(client)
        if not found:
            return
        self._tries = 0
        if set(found) != set(self.names):
            log.info("the upstream %s serves %s", self._upstream.address, ", ".join(found))
        self.names = found

    def learn_later(self, client: httpx2.AsyncClient) -> None:
        """Ask the upstream in a task, unless it has told. Raise what an earlier task has raised."""
        if self._learning is not None and self._learning.done():
            learning, self._learning = self._learning, None
            learning.result()
        if self._tries > 0 and self._learning is None:
            self._learning = asyncio.create_task(self.learn(client), name="upstream endpoints")

    async def aclose(self) -> None:
        """End the task."""
        learning, self._learning = self._learning, None
        if learning is not None:
            await tasks.end((learning,))

    async def _find(self, client: httpx2.AsyncClient) -> list[str]:
        """Return the endpoints that the upstream serves; none when it does not tell."""
        anywhere = await probe(client, self._upstream, self._upstream.url(_NOWHERE))
        if anywhere is Verdict.LATER:
            return []
        if anywhere is not Verdict.NOT_SERVED:  # it answers whatever the path is, so no answer says anything
            return [name for name in CALLS if name not in _IF_TOLD]
        urls = [self._upstream.url(call.path, at_root=call.at_root) for call in CALLS.values()]
        verdicts = await asyncio.gather(*(probe(client, self._upstream, url) for url in urls))
        return [name for name, verdict in zip(CALLS, verdicts, strict=True) if _is_served(name, verdict)]


def _is_served(name: str, verdict: Verdict) -> bool:
    if verdict is Verdict.SERVED:
        return True
    return verdict is not Verdict.NOT_SERVED and name not in _IF_TOLD

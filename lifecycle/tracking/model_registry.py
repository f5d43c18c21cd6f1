"""Know which models the cluster serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from lifecycle.aio import tasks
from lifecycle.errors import StoreError, StoreUnavailable
from lifecycle.store.results import Roster, accepts_of, models_of
from lifecycle.store.transitions import Store

ModelState = Literal["live", "known", "unknown"]
"""`live`: a living worker serves the model. `known`: a worker has served it, as far as Redis or this frontend knows."""


class ModelRegistry:
    """Cache the roster of one frontend's cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._roster: Roster | None = None
        self._asked_at = float("-inf")  # loop time at which Redis was last asked for the roster
        self._failure = ""  # the error of that time, empty for none
        self._lock = asyncio.Lock()
        self._known: set[str] = set()
        self._live: frozenset[str] = frozenset()
        self._accepts: dict[str, set[frozenset[str]]] = {}

    async def state_of(self, model: str) -> ModelState:
        """Return a model's state; the roster is refreshed unless the model is live. Raises StoreUnavailable."""
        if self._cached_state(model) != "live":
            await self.refresh()
        return self._cached_state(model)

    def accepts(self, model: str) -> set[frozenset[str]]:
        """Return the gated parameters that the model's living workers accept, one set for each; `*` stands for all."""
        return self._accepts.get(model, set())

    async def find_unsupported(self, model: str, names: Sequence[str]) -> str | None:
        """Return the first of these gated parameters that keeps every living worker of the model from the call.

        Returns None when one worker accepts all of them, or when no worker lives. The roster is refreshed before a
        parameter is returned. Raises StoreUnavailable.
        """
        unsupported = self._unsupported(model, names)
        if unsupported is not None:
            await self.refresh()
            unsupported = self._unsupported(model, names)
        return unsupported

    def _unsupported(self, model: str, names: Sequence[str]) -> str | None:
        missing = [
            [name for name in names if name not in accepted and "*" not in accepted] for accepted in self.accepts(model)
        ]
        fewest = min(missing, key=len, default=[])
        return fewest[0] if fewest else None

    async def refresh(self) -> Roster:
        """Return a roster no older than this call. Callers that wait at the same time share it, or its failure.

        Raises StoreUnavailable.
        """
        clock = asyncio.get_running_loop().time
        called_at = clock()
        async with self._lock:
            if self._asked_at < called_at:
                asked_at = clock()
                try:
                    self._roster, self._failure = await self._store.roster(), ""
                    self._known.update(self._roster.models)
                    self._live = frozenset(models_of(self._roster))
                    self._accepts = accepts_of(self._roster)
                except StoreUnavailable as failure:
                    self._failure = failure.message
                self._asked_at = asked_at
            if self._roster is None or self._failure:
                raise StoreUnavailable(self._failure)
            return self._roster

    async def run(self) -> None:
        """Refresh the roster with each heartbeat until cancelled."""
        while True:
            await asyncio.sleep(self._store.settings.heartbeat_secs)
            with suppress(StoreError):
                await self.refresh()
            tasks.check_cancelled()

    def _cached_state(self, model: str) -> ModelState:
        if model in self._live:
            return "live"
        return "known" if model in self._known else "unknown"

"""Clients that keep coming while Redis is made to fail, and what each of them was answered."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from lifecycle.aio import tasks
from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.engines import numbers
from tests.chaos.signatures import text_of
from tests.sse import chat, error_of
from tests.waiting import wait_until

WHOLE = "whole"
REFUSED = "refused"
LOST = {"state_lost", "worker_lost", "frontend_lost", "unavailable"}
"""What an asynchronous replication may have lost ends so, and never as a wrong text."""
PACED = "tests.chaos.engines:paced"
_ANSWER_SECS = 40.0  # nothing hangs: no client waits longer than this for its end
_REFUSED_PAUSE_SECS = 0.1


@asynccontextmanager
async def straight_bench(
    settings: Settings, directory: Path, *, frontends: int = 2, workers: int = 1, **watching: Any
) -> AsyncIterator[Bench]:
    """A bench whose processes reach Redis themselves: what breaks is Redis. Its model is `paced`."""
    async with open_bench(settings, directory, frontends=0, workers=0, **watching) as bench:
        await asyncio.gather(*(bench.frontend(redis_url=settings.redis_url) for _ in range(frontends)))
        await asyncio.gather(*(bench.worker("paced", PACED, redis_url=settings.redis_url) for _ in range(workers)))
        yield bench


def paced(count: int, pause_secs: float = 0.02) -> dict[str, Any]:
    """A request for so many numbers, so far apart."""
    return chat(f"{count} {pause_secs}", "paced")


class Answer(NamedTuple):
    """One client's result: the whole text, or a part of it and an error frame, or a refusal."""

    rid: str
    kind: str  # WHOLE, REFUSED or the error_type of the frame


class Load:
    """Run `count` clients, each with one short stream after the other, until the block ends.

    Whatever they read is held to the promises by the bench's invariants; here it must also be the engine's text.
    """

    def __init__(self, bench: Bench, *, clients: int = 6, tokens: int = 12, pause_secs: float = 0.02) -> None:
        self.answers: list[Answer] = []
        self._bench = bench
        self._clients = clients
        self._tokens = tokens
        self._pause_secs = pause_secs
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def kinds(self) -> Counter[str]:
        return Counter(answer.kind for answer in self.answers)

    async def whole(self, more: int = 6, timeout: float = 30.0) -> None:
        """Wait until so many more streams have completed."""
        wanted = self.kinds[WHOLE] + more
        await wait_until(lambda: self._look() >= wanted, timeout=timeout, what=f"{more} more whole streams")

    def _look(self) -> int:
        for task in self._tasks:
            if task.done():
                task.result()
        return self.kinds[WHOLE]

    async def __aenter__(self) -> Self:
        frontends = itertools.cycle(list(self._bench.frontends))
        self._tasks = [
            asyncio.create_task(self._client(number, next(frontends)), name=f"client {number}")
            for number in range(self._clients)
        ]
        await self.whole(1)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop = True
        if kind is None:
            await asyncio.gather(*self._tasks)
        await tasks.end(self._tasks)

    async def _client(self, number: int, frontend: Any) -> None:
        for turn in itertools.count():
            if self._stop:
                return
            rid = f"load-{number}-{turn}"
            async with asyncio.timeout(_ANSWER_SECS):
                answer = Answer(rid, await self._ask(frontend, rid))
            self.answers.append(answer)
            if answer.kind == REFUSED:
                await asyncio.sleep(_REFUSED_PAUSE_SECS)

    async def _ask(self, frontend: Any, rid: str) -> str:
        async with self._bench.post(frontend, paced(self._tokens, self._pause_secs), rid) as stream:
            if stream.response.status_code == 503:
                assert int(stream.response.headers["retry-after"]) >= 1
                return REFUSED
            assert stream.response.status_code == 200, await stream.response.aread()
            events = await stream.read()
        error, text = error_of(events), text_of(events)
        assert numbers(self._tokens).startswith(text), (rid, text)
        if error is None:
            assert text == numbers(self._tokens), (rid, text)
            return WHOLE
        return str(error["error_type"])

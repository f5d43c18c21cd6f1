"""The metrics count tokens as they come and correct them by the engine's report at the end, each once in the cluster.

Real frontends without their HTTP: what Redis pushes is dispatched to the requests that they own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lifecycle.store.results import Outcome
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.push_dispatcher import PushDispatcher
from lifecycle.tracking.readers import Readers
from lifecycle.types import Limits
from tests.pushes import Pushes
from tests.unit.world import LABELS, World

COMPLETED = Outcome("completed", finish_reason="stop")
CANCELLED = Outcome("cancelled", "cancelled")
TOKENS, INPUT = "lifecycle_output_tokens_total", "lifecycle_input_tokens_total"


class Frontend:
    def __init__(self, world: World, name: str, inbox: Pushes) -> None:
        self.metrics = Metrics()
        self._spawned: list[asyncio.Task[None]] = []
        self._inbox = inbox
        state = FrontendState(id=name)
        self._readers = Readers(world.store, state, self._spawn)
        self.owned = OwnedRequests(world.store, self.metrics, state, self._readers, self._spawn)
        self._dispatcher = PushDispatcher(state, self._readers, self.owned)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._spawned.append(asyncio.create_task(work, name=name))

    def own(self) -> None:
        feed = self._readers.feed("r")
        feed.pin()
        self.owned.own(feed, LABELS, Limits(), RequestSpan("r", LABELS), queued=True)

    async def receive(self) -> None:
        """Handle all that Redis has pushed."""
        for item in await self._inbox.take():
            self._dispatcher.dispatch(*item)
        await asyncio.gather(*self._spawned)

    async def lose_messages(self) -> None:
        """Drop all that Redis has pushed."""
        await self._inbox.take()

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": LABELS.model}) or 0.0

    def observed(self, name: str) -> tuple[float, float]:
        """Return the number and the sum of a histogram's observations."""
        return self.value(f"lifecycle_{name}_count"), self.value(f"lifecycle_{name}_sum")


@asynccontextmanager
async def frontend(world: World, name: str) -> AsyncIterator[Frontend]:
    inbox = await Pushes.open(world.store, name)
    try:
        yield Frontend(world, name, inbox)
    finally:
        await inbox.close()


@pytest.fixture
async def owner(world: World) -> AsyncIterator[Frontend]:
    async with frontend(world, "f0") as owner:
        yield owner


async def _append(world: World, *numbers: int, **worker: Any) -> None:
    for number in numbers:
        assert await world.append(number, **worker) == "accepted"


@pytest.mark.parametrize(
    ("usage", "tokens", "length", "prompt"),
    [
        (None, 3, 3, None),
        ({"completion_tokens": 20, "prompt_tokens": 7}, 20, 20, 7),
        ({"completion_tokens": 2, "prompt_tokens": 0}, 3, 2, 0),
        ({"completion_tokens": 0}, 3, 0, None),
        ({"prompt_tokens": 7}, 3, 3, 7),
    ],
)
async def test_tokens_are_corrected_upwards_by_the_report_and_never_downwards(
    world: World, owner: Frontend, usage: dict[str, Any] | None, tokens: int, length: int, prompt: int | None
) -> None:
    await world.run()
    owner.own()
    await _append(world, 1, 2, 3)
    await owner.receive()
    assert (owner.value(TOKENS), owner.value(INPUT)) == (3, 0)
    await world.finish(3, outcome=COMPLETED._replace(usage=usage, content_events=3))
    await owner.receive()
    await owner.receive()
    assert (owner.value(TOKENS), owner.value(INPUT)) == (tokens, prompt or 0)
    assert owner.value("lifecycle_output_events_total") == 3
    assert owner.observed("output_sequence_tokens") == (1, length)
    assert owner.observed("input_sequence_tokens") == ((0, 0) if prompt is None else (1, prompt))


@pytest.mark.parametrize(("reported", "tokens"), [(None, 3), (9, 9), (2, 3)])
async def test_lost_messages_change_no_count(world: World, owner: Frontend, reported: int | None, tokens: int) -> None:
    await world.run()
    owner.own()
    await _append(world, 1)
    await owner.receive()
    await _append(world, 2, 3)
    usage = {"completion_tokens": reported} if reported is not None else None
    await world.finish(3, outcome=COMPLETED._replace(usage=usage))
    await owner.lose_messages()
    owner.owned.check_lost(["r"])
    await owner.receive()
    assert owner.value(TOKENS) == tokens


async def test_a_request_that_is_tried_again_elsewhere_counts_once(world: World, owner: Frontend) -> None:
    await world.run()
    owner.own()
    assert await world.reap("w0") == (0, 1, 0)
    await world.take("w1")
    await _append(world, 1, 2, worker="w1", attempt=2)
    await owner.receive()
    await world.finish(2, worker="w1", attempt=2, outcome=COMPLETED._replace(usage={"prompt_tokens": 4}))
    await owner.receive()
    assert (owner.value(TOKENS), owner.value(INPUT)) == (2, 4)
    assert owner.observed("output_sequence_tokens") == (1, 2)


async def test_a_resumed_request_counts_the_tokens_of_both_attempts_once(world: World, owner: Frontend) -> None:
    await world.run(resumable=True)
    owner.own()
    await _append(world, 1, 2)
    await world.reap("w0")
    await world.take("w1", resumable=True)
    await _append(world, 3, worker="w1", attempt=2)
    usage = {"completion_tokens": 9, "prompt_tokens": 4}
    await world.finish(3, worker="w1", attempt=2, outcome=COMPLETED._replace(usage=usage))
    await owner.receive()
    assert (owner.value(TOKENS), owner.value(INPUT)) == (9, 4)


@pytest.mark.parametrize(("reported", "tokens"), [(None, 2), (6, 6), (1, 2)])
async def test_a_cancelled_request_counts_what_came_and_what_its_worker_reports(
    world: World, owner: Frontend, reported: int | None, tokens: int
) -> None:
    await world.run()
    owner.own()
    await _append(world, 1, 2)
    await world.cancel()
    await owner.receive()
    assert owner.value(TOKENS) == 2
    usage = {"completion_tokens": reported, "prompt_tokens": 3} if reported is not None else None
    await world.finish(2, outcome=CANCELLED._replace(usage=usage, content_events=4, produced_events=4))
    await owner.receive()
    assert (owner.value(TOKENS), owner.value(INPUT)) == (tokens, 3 if usage else 0)
    assert owner.value("lifecycle_orphan_tokens_total") == 2
    assert owner.value("lifecycle_output_events_total") == 2


@pytest.mark.parametrize(("reported", "added"), [(None, 2), (20, 17), (1, 2)])
async def test_a_frontend_that_takes_over_counts_what_comes_from_then_on(
    world: World, owner: Frontend, reported: int | None, added: int
) -> None:
    async with frontend(world, "f1") as new_owner:
        await world.run(on_disconnect="continue")
        owner.own()
        await _append(world, 1, 2, 3)
        await owner.receive()
        await world.reap("f0")
        await owner.owned.leave_live_requests()
        await new_owner.receive()
        await _append(world, 4, 5)
        usage = {"completion_tokens": reported, "prompt_tokens": 8} if reported is not None else None
        await world.finish(5, outcome=COMPLETED._replace(usage=usage, content_events=5))
        await owner.receive()
        await new_owner.receive()
        assert (owner.value(TOKENS), new_owner.value(TOKENS)) == (3, added)
        assert (owner.value(INPUT), new_owner.value(INPUT)) == (0, 8 if usage else 0)
        assert (owner.observed("output_sequence_tokens")[0], new_owner.observed("output_sequence_tokens")[0]) == (0, 1)
        orphans = "lifecycle_orphan_tokens_total"
        assert (owner.value(orphans), new_owner.value(orphans)) == (0, 2)

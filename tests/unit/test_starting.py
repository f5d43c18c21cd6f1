"""Races before a request runs: its admission, its delivery to a worker, its limits, and its start."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.store.results import Drop, Start, UnservedModel, Unsupported
from lifecycle.store.worker_roster import Missing
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.types import Labels, Role
from tests.joining import join
from tests.unit.world import World


async def test_a_cancel_before_the_start_wins(world: World) -> None:
    await world.admit()
    delivery = await world.take()
    assert await world.cancel("stop") == "terminal"
    assert await world.start(delivery) == Drop("cancelled")
    assert (await world.record()).attempt == 0


async def test_a_cancel_after_the_start_is_told_to_its_worker(world: World) -> None:
    delivery = await world.run()
    assert await world.cancel() == "pending"
    again = await world.start(delivery)
    assert isinstance(again, Start)
    assert again.cancel_mode == "kill"
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER)
    assert [(pending.rid, pending.mode) for pending in reconciliation.pending_cancellations] == [("r", "kill")]
    await world.finish()
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER)).pending_cancellations == []


@pytest.mark.leaves_inflight
async def test_one_delivery_is_started_once(world: World) -> None:
    delivery = await world.run()
    assert isinstance(await world.start(delivery), Start)
    assert await world.start(delivery, "w1") == Drop("taken")
    assert (await world.record()).attempt == 1


@pytest.mark.leaves_inflight
async def test_the_same_nonce_gets_the_first_answer_and_another_is_refused(world: World) -> None:
    first = await world.admit()
    assert await world.admit() == first
    assert (await world.admit(nonce="other")).outcome == "exists"
    assert await world.counts("f0") == {"queued": 1}


@pytest.mark.leaves_inflight
async def test_past_its_limit_the_queue_is_full(world: World) -> None:
    await world.admit("r0")
    await world.admit("r1")
    full = await world.admit("r2")
    assert (full.outcome, full.depth) == ("full", 2)
    await world.start(await world.take())
    assert (await world.admit("r2")).outcome == "admitted"


async def test_overdue_work_never_starts(world: World) -> None:
    await world.admit(queue_timeout_secs=5)
    delivery = await world.take()
    world.shift_clock(6)
    assert await world.start(delivery) == Drop("overdue")
    assert (await world.record()).error_type == "queue_timeout"


async def test_a_request_that_runs_is_past_its_queue_limit(world: World) -> None:
    await world.run(queue_timeout_secs=5)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (0, False, 0)
    await world.finish()


async def test_the_first_token_ends_the_wait_for_it(world: World) -> None:
    await world.run(first_token_timeout_secs=5)
    await world.append(1)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (0, False, 0)
    await world.finish(1)


async def test_a_queue_that_nobody_serves_ends(world: World) -> None:
    await world.admit()
    assert await world.store.sweep(0, [UnservedModel("m")]) == (1, False, 0)
    assert (await world.record()).error_type == "unavailable"


@pytest.mark.leaves_inflight
async def test_a_start_hands_on_the_headers_the_endpoint_and_the_owner(world: World) -> None:
    await world.admit(headers=b'{"x-session-id":"s1"}', owner="acme")
    delivery = await world.take()
    for _ in range(2):  # a repetition gets the same
        start = await world.start(delivery)
        assert (start.headers, start.endpoint, start.owner) == (b'{"x-session-id":"s1"}', "chat_completions", "acme")
    await world.admit("r1")
    start = await world.start(await world.take())
    assert (start.headers, start.endpoint, start.owner) == (b"", "chat_completions", "")


async def test_headers_are_not_in_the_record_that_others_see(world: World) -> None:
    await world.admit(headers=b'{"x-session-id":"s1"}')
    await world.start(await world.take())
    assert await world.store.command("HGET", world.prefix + "request:r", "headers") is not None
    ended = await world.finish()
    shown = [ended.text, *(text for text in await world.store.command("HVALS", world.prefix + "request:r") if text)]
    assert b"s1" in b"".join(shown[1:])
    assert b"s1" not in shown[0]


@pytest.mark.leaves_inflight
async def test_a_count_of_tokens_is_started_by_an_engine_that_counts(world: World) -> None:
    needs = ("serves:count_tokens",)
    await world.admit(labels=Labels("m", "messages", "unary"), needs=needs)
    delivery = await world.take()

    async def start(endpoints: str) -> Any:
        found = delivery.rid, "w0", delivery.queue, "m", delivery.entry
        return await world.store.start(*found, endpoints=endpoints)

    assert await start(" chat_completions ~messages ") == Unsupported("messages", needs)
    assert await start(" messages ") == Unsupported("messages", needs)
    started = await start(" messages count_tokens ")
    assert (started.endpoint, started.served) == ("messages", "count_tokens")


async def test_a_count_of_tokens_is_refused_where_no_engine_counts(world: World) -> None:
    models, needs = ModelRegistry(world.store), ("serves:count_tokens",)
    about: dict[str, Any] = {"models": ["m"], "accepts": ["*"], "endpoints": {"messages": "native"}}
    await join(world.store, "w0", Role.WORKER, about, ["m"])
    await models.refresh()
    missing = await models.find_unsupported("m", "messages", needs)
    assert missing == Missing("count_tokens")
    assert missing.detail.code == "unsupported_endpoint"
    about["endpoints"]["count_tokens"] = "native"
    await join(world.store, "w0", Role.WORKER, about, ["m"])
    assert await models.find_unsupported("m", "messages", needs) is None

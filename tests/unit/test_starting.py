"""Races before a request runs: its admission, its limits, and its start by the worker that takes it."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.store.results import QueuedRequest, UnservedModel
from lifecycle.store.worker_roster import Missing
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.types import Labels, Role
from tests.joining import join
from tests.unit.world import World


async def test_a_cancel_before_the_start_wins(world: World) -> None:
    await world.admit()
    assert await world.cancel("stop") == "terminal"
    assert (await world.take_all()).runs == []
    assert (await world.record()).attempt == 0


async def test_a_cancel_after_the_start_is_told_to_its_worker(world: World) -> None:
    await world.run()
    assert await world.cancel() == "pending"
    assert [run.start.cancel_mode for run in (await world.take_again()).runs] == ["kill"]
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER)
    assert [(pending.rid, pending.mode) for pending in reconciliation.pending_cancellations] == [("r", "kill")]
    await world.finish()
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER)).pending_cancellations == []


@pytest.mark.leaves_inflight
async def test_a_request_is_taken_once(world: World) -> None:
    await world.run()
    assert (await world.take_all("w1")).runs == []
    assert (await world.record()).attempt == 1


@pytest.mark.leaves_inflight
async def test_a_repeated_take_brings_the_same_and_nothing_else(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 100}))
    for number in range(5):
        await world.admit(f"r{number}")
    first = await world.take_all(slots=2)
    assert [run.rid for run in first.runs] == ["r0", "r1"]
    assert (await world.take_again(slots=2)).runs == first.runs
    await world.store.requeue("r0", "w0", 1)
    assert [run.rid for run in (await world.take_again(slots=2)).runs] == ["r1"], "without what runs there no more"
    assert [run.rid for run in (await world.take_all(slots=2)).runs] == ["r0", "r2"]
    late = await world.store.take(0, "w0", 1, "w0--0001", ["m"], 2)
    assert late is None, "a call that a later one has overtaken takes nothing"


@pytest.mark.leaves_inflight
async def test_one_take_is_bounded_in_number_and_in_bytes(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 100}))
    for number in range(20):
        await world.admit(f"small{number}")
    first = await world.take_all(slots=100)
    assert len(first.runs) == 16
    await world.take_all(slots=100)
    for number in range(3):
        await world.admit(f"large{number}", body=b"x" * 600_000)
    taken = await world.take_all(slots=3)
    assert [run.rid for run in taken.runs] == ["large0"]
    assert not taken.waits, "the rest is to be taken at once"
    assert [run.rid for run in (await world.take_all(slots=3)).runs] == ["large1"]


@pytest.mark.leaves_inflight
async def test_what_an_engine_does_not_take_is_left_for_another_and_keeps_nothing_waiting(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 100}))
    for number in range(10):
        await world.admit(f"tools{number}", needs=("tools",))
    await world.admit("plain")
    taken = await world.take_all(slots=2, accepts=())
    assert [run.rid for run in taken.runs] == ["plain"]
    assert [found.rid for found in taken.unsupported] == [f"tools{number}" for number in range(10)]
    assert taken.waits
    assert (await world.take("w1")).rid == "tools0"


@pytest.mark.leaves_inflight
async def test_an_endless_line_of_what_an_engine_does_not_take_costs_a_bounded_time(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 1000}))
    for number in range(300):
        await world.admit(f"tools{number}", needs=("tools",), owner=f"o{number % 20}")
    taken = await world.take_all(slots=2, accepts=())
    assert taken.runs == []
    assert len(taken.unsupported) <= 200
    assert taken.waits, "it does not ask again at once"


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
    await world.take()
    assert (await world.admit("r2")).outcome == "admitted"


async def test_overdue_work_never_starts(world: World) -> None:
    await world.admit(queue_timeout_secs=5)
    world.shift_clock(6)
    assert (await world.take_all()).runs == []
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
    await world.take()
    for _ in range(2):  # a repetition gets the same
        start = (await world.take_again()).runs[0].start
        assert (start.headers, start.endpoint, start.owner) == (b'{"x-session-id":"s1"}', "chat_completions", "acme")
    await world.admit("r1")
    start = (await world.take()).start
    assert (start.headers, start.endpoint, start.owner) == (b"", "chat_completions", "")


async def test_headers_are_not_in_the_record_that_others_see(world: World) -> None:
    await world.admit(headers=b'{"x-session-id":"s1"}')
    await world.take()
    assert await world.store.command("HGET", world.prefix + "request:r", "headers") is not None
    ended = await world.finish()
    shown = [ended.text, *(text for text in await world.store.command("HVALS", world.prefix + "request:r") if text)]
    assert b"s1" in b"".join(shown[1:])
    assert b"s1" not in shown[0]


@pytest.mark.leaves_inflight
async def test_a_count_of_tokens_is_started_by_an_engine_that_counts(world: World) -> None:
    needs = ("serves:count_tokens",)
    await world.admit(labels=Labels("m", "messages", "unary"), needs=needs)

    for endpoints in (" chat_completions ~messages ", " messages "):
        taken = await world.take_all(endpoints=endpoints)
        assert (taken.runs, taken.unsupported) == ([], [QueuedRequest("r", "m", "messages", needs)])
    started = (await world.take(endpoints=" messages count_tokens ")).start
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

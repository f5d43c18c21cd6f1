"""Test what the timeline of a request tells, and who is recorded as having cancelled it."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.cli.why import _SENTENCES, lines
from lifecycle.queries import timeline
from lifecycle.store.results import Failure, Outcome
from lifecycle.types import CancelMode, ErrorDetail
from tests.unit.world import World

pytestmark = pytest.mark.leaves_inflight


async def told(world: World, rid: str = "r") -> list[dict[str, Any]]:
    found = await timeline.read(world.store, rid)
    assert found is not None
    entries: list[dict[str, Any]] = found.to_json()["data"]
    assert [e["at"] for e in entries] == sorted(e["at"] for e in entries)
    return entries


async def whats(world: World) -> list[str]:
    return [entry["what"] for entry in await told(world)]


async def steps(world: World) -> Any:
    return await world.store.command("HGET", f"{world.prefix}request:r", "steps")


async def test_an_ordinary_request_is_told_without_any_write_of_its_own(world: World) -> None:
    await world.run(owner="acme")
    await world.append(1)
    await world.finish(1)
    await world.store.disconnect("r", "f0", 0, "closed_gracefully", admitting=True)
    entries = await told(world)
    assert [e["what"] for e in entries] == ["admitted", "queued", "started", "first_event", "attempt_ended", "ended"]
    assert (entries[0]["frontend"], entries[0]["owner"]) == ("f0", "acme")
    assert (entries[2]["worker"], entries[2]["attempt"]) == ("w0", 1)
    assert entries[-1]["status"] == "completed"
    assert await steps(world) is None


async def test_an_unknown_request_has_none(world: World) -> None:
    assert await timeline.read(world.store, "unknown") is None


async def test_readers_that_come_and_go_are_told_once_each(world: World) -> None:
    await world.run(on_disconnect="continue")
    for readers in (1, 1, 2):
        await world.store.attach("r", "f1", readers)
    for _ in range(2):
        await world.store.disconnect("r", "f1", 1, "closed_gracefully", admitting=False)
    for _ in range(2):
        await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    entries = [(e["what"], e["frontend"]) for e in await told(world) if "frontend" in e]
    assert entries[1:] == [
        ("reader_attached", "f1"),
        ("reader_attached", "f1"),
        ("reader_left", "f1"),
        ("client_disconnected", "f0"),
    ]


async def test_each_attempt_is_told_with_its_end(world: World) -> None:
    await world.run(worker="w0")
    await world.store.requeue("r", "w0", 1, failure=Failure("the GPU is gone"))
    await world.take("w1")
    await world.store.requeue("r", "w1", 2)
    await world.take("w0")
    await world.finish(0, worker="w0", attempt=3)
    entries = await told(world)
    assert [(e["attempt"], e["worker"]) for e in entries if e["what"] == "started"] == [
        (1, "w0"), (2, "w1"), (3, "w0"),
    ]  # fmt: skip
    ends = [(e["attempt"], e["outcome"], e["error_message"]) for e in entries if e["what"] == "attempt_ended"]
    assert ends == [(1, "failed", "the GPU is gone"), (2, "moved", None), (3, "completed", None)]
    assert await whats(world) == [
        "admitted",
        *("queued", "started", "attempt_ended") * 3,
        "ended",
    ]


async def test_a_new_frontend_is_told(world: World) -> None:
    await world.admit(on_disconnect="continue")
    await world.reap("f0")
    entries = await told(world)
    assert entries[0]["frontend"] == "f0"
    assert [e["what"] for e in entries] == ["admitted", "queued", "frontend_changed"]
    assert (entries[-1]["previous"], entries[-1]["frontend"]) == ("f0", "f1")


def test_the_command_line_has_a_sentence_for_each_kind_of_entry() -> None:
    assert _SENTENCES.keys() == set(timeline.WHATS)


async def test_the_command_line_tells_it_in_plain_words(world: World) -> None:
    await world.run(owner="acme", on_disconnect="continue")
    await world.store.requeue("r", "w0", 1, failure=Failure("the GPU is gone"))
    await world.store.attach("r", "f1", 1)
    await world.store.cancel("r", CancelMode.KILL, "enough", by="owner:acme", via="f1")
    found = await timeline.read(world.store, "r")
    assert found is not None
    assert [line[28:] for line in lines(found)] == [
        "Frontend f0 admitted it for the model m, for acme.",
        "It waited for a worker.",
        "Worker w0 started attempt 1.",
        "Attempt 1 on worker w0 ended: failed (unavailable: the GPU is gone).",
        "It waited for a worker.",
        "A reader came to frontend f1.",
        "Its end was asked for (kill: as soon as possible) by its owner acme, through frontend f1.",
        "It ended as cancelled, by its owner acme, through frontend f1 (cancelled: enough).",
    ]


async def test_it_is_bounded(world: World) -> None:
    await world.run(on_disconnect="continue")
    for _ in range(100):
        await world.store.attach("r", "f1", 1)
        await world.store.attach("r", "f1", 0)
    entries = await told(world)
    assert len(entries) == 3 + 64 + 1
    assert [e["steps"] for e in entries if e["what"] == "left_out"] == [200 - 64]
    assert "steps" not in (await world.record()).to_json()


@pytest.mark.parametrize("running", [False, True])
async def test_a_cancel_says_who_asked_for_it_and_where(world: World, running: bool) -> None:
    await (world.run() if running else world.admit())
    await world.store.cancel("r", CancelMode.KILL, "enough", by="owner:acme", via="f1")
    await world.store.cancel("r", CancelMode.KILL, "me too", by="operator:other", via="f0")
    if running:
        await world.finish(0, outcome=Outcome("cancelled"))
    record = (await world.record()).to_json()
    assert (record["status"], record["cancelled_by"], record["cancelled_via"]) == ("cancelled", "owner:acme", "f1")
    asked = [e for e in await told(world) if e["what"] == "cancel_requested"]
    assert [(e["by"], e["via"], e["mode"]) for e in asked] == [("owner:acme", "f1", "kill")]


async def test_a_kill_after_a_stop_says_who_killed(world: World) -> None:
    await world.run()
    await world.store.cancel("r", CancelMode.STOP, "", by="owner:acme", via="f0")
    await world.store.cancel("r", CancelMode.KILL, "")
    record = await world.record()
    assert (record.cancelled_by, record.cancelled_via) == ("operator:library", None)
    assert (await whats(world)).count("cancel_requested") == 2


async def test_a_request_that_nobody_cancelled_says_so(world: World) -> None:
    await world.run()
    await world.finish(0)
    record = (await world.record()).to_json()
    assert record["cancelled_by"] is record["cancelled_via"] is None


async def test_a_lost_client_is_a_disconnect_through_its_frontend(world: World) -> None:
    await world.admit()
    await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    record = await world.record()
    assert (record.status, record.cancelled_by, record.cancelled_via) == ("cancelled", "disconnect", "f0")
    assert (await whats(world))[2:] == ["client_disconnected", "cancel_requested", "ended"]


async def test_so_is_one_whose_grace_has_passed(world: World) -> None:
    await world.admit(grace_secs=5)
    await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    world.shift_clock(6)
    await world.store.sweep(0)
    record = await world.record()
    assert (record.status, record.cancelled_by, record.cancelled_via) == ("cancelled", "disconnect", "f0")


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("queue_timeout_secs", "queue_timeout"),
        ("first_token_timeout_secs", "first_token_timeout"),
        ("deadline_secs", "deadline"),
    ],
)
async def test_a_limit_is_named_where_it_ended_the_request(world: World, limit: str, name: str) -> None:
    admission: dict[str, Any] = {limit: 5}
    await world.admit(**admission)
    world.shift_clock(6)
    await world.store.sweep(0)
    record = await world.record()
    assert (record.status, record.error_type) == ("failed", name)
    assert (record.cancelled_by, record.cancelled_via) == (f"limit:{name}", None)
    assert (await told(world))[-1]["cancelled_by"] == f"limit:{name}"


@pytest.mark.parametrize("name", ["response_timeout", "slow_consumer"])
async def test_so_is_a_limit_that_a_frontend_keeps(world: World, name: str) -> None:
    await world.run()
    await world.store.fail("r", name, "too slow")
    record = await world.record()
    assert (record.cancelled_by, record.cancelled_via) == (f"limit:{name}", "f0")


async def test_an_upstreams_own_time_out_is_no_limit(world: World) -> None:
    await world.run()
    await world.finish(0, outcome=Outcome("failed", "response_timeout", "504", detail=ErrorDetail(504)))
    assert (await world.record()).cancelled_by is None


async def test_a_worker_names_the_limit_of_its_silent_engine(world: World) -> None:
    await world.run()
    await world.finish(0, outcome=Outcome("failed", "response_timeout", "silent"))
    assert (await world.record()).cancelled_by == "limit:response_timeout"

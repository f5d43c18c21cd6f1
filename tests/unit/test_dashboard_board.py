"""The dashboard's events: snapshots, changes, and one query of Redis for all viewers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from frontend.dashboard import cached_snapshot
from frontend.dashboard.cached_snapshot import CachedSnapshot
from frontend.dashboard.dashboard_feed import QUEUE_ROWS, DashboardFeed, ListingQuery, Viewer
from frontend.dashboard.rates import Rates
from frontend.dashboard.snapshot import Snapshot as TableSnapshot
from frontend.dashboard.snapshot import changes
from frontend.routes import overview
from lifecycle.errors import StoreUnavailable
from lifecycle.fastapi.errors import ApiError
from lifecycle.queries.cluster import ClusterSnapshot, Count, Inflight
from lifecycle.records import Replica
from lifecycle.types import Labels, Role
from tests.unit.world import LABELS, World

LEASE_SECS = 12.0
ALL = ListingQuery("oldest", "", "", (), 50)


def test_of_a_table_only_what_is_new_is_sent() -> None:
    before: dict[str, dict[str, Any]] = {"a": {"id": "a", "n": 1, "m": "x"}, "b": {"id": "b", "n": 1}}
    now: dict[str, dict[str, Any]] = {"a": {"id": "a", "n": 2, "m": "x"}, "c": {"id": "c", "n": None}}
    assert changes(before, now) == {"set": [{"id": "a", "n": 2}, {"id": "c", "n": None}], "gone": ["b"]}
    assert changes(now, now) == {"set": [], "gone": []}


def test_a_viewer_one_version_behind_gets_a_delta_and_any_other_a_snapshot() -> None:
    snapshot = TableSnapshot(
        3, {"as_of": 1.0}, {"t": {"a": {"id": "a", "n": 2}}}, {"t": {"a": {"id": "a", "n": 1}}}, [[1]]
    )
    delta = {"kind": "delta", "as_of": 1.0, "t": {"set": [{"id": "a", "n": 2}], "gone": []}}
    whole = {"kind": "snapshot", "as_of": 1.0, "history": [[1]], "t": {"set": [{"id": "a", "n": 2}], "gone": []}}
    assert [orjson.loads(snapshot.since(seen)) for seen in (2, 1, 0)] == [delta, whole, whole]


def frontend(name: str, heartbeat_at: float, now: float, tokens: int, disconnects: int = 0) -> Replica:
    left_ms = int((heartbeat_at + LEASE_SECS - now) * 1000)
    counted = {"output_tokens": tokens, "disconnects": disconnects}
    return Replica(name, Role.FRONTEND, "h", 1, 0.0, left_ms, "ready", 0, (), None, None, counted=counted)


def snapshot(at: float, *replicas: Replica, completed: int = 0, failed: int = 0, cancelled: int = 0) -> ClusterSnapshot:
    totals: dict[tuple[str, str, str, str, str], int] = {
        (*LABELS, "success", ""): completed,
        (*LABELS, "error", "internal"): failed,
        (*LABELS, "error", "cancelled"): cancelled,
    }
    return ClusterSnapshot(
        Inflight({Labels(*LABELS): Count(1, 2)}, [], at), list(replicas), totals, {}, None, (), 0, {}
    )


def test_tokens_are_counted_between_two_heartbeats_of_each_frontend() -> None:
    rates = Rates(LEASE_SECS)

    def rate(now: float, *told: Any) -> float:
        return rates.add(snapshot(now, *(frontend(name, at, now, n) for name, at, n in told))).tokens_per_sec

    assert rate(100, ("a", 99, 5000), ("b", 98, 100)) == 0.0  # what was before is unknown
    assert rate(101, ("a", 99, 5000), ("b", 101, 400)) == 100.0
    assert rate(102, ("a", 102, 5600), ("b", 101, 400)) == 300.0
    assert rate(103, ("a", 102, 5600)) == 200.0  # b is gone, and what it did with it
    assert rate(105, ("a", 105, 5600)) == 0.0
    assert rate(200, ("a", 199, 9000)) == 0.0  # nobody looked for too long


def test_ends_and_disconnects_are_those_since_the_last_point() -> None:
    rates = Rates(LEASE_SECS)
    rates.add(snapshot(100, frontend("a", 99, 100, 0, 7), completed=100, failed=10, cancelled=1))
    point = rates.add(snapshot(101, frontend("a", 101, 101, 0, 9), completed=103, failed=11, cancelled=1))
    assert (point.completed, point.failed, point.cancelled, point.disconnects) == (3, 1, 0, 2)
    assert (point.queued, point.running) == (1, 2)
    lost = rates.add(snapshot(102, completed=0))  # Redis has lost its data
    assert (lost.completed, lost.failed) == (0, 0)


async def test_whoever_asks_first_takes_it_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_snapshot, "PERIOD_SECS", 60.0)
    taken = 0

    async def take(last: TableSnapshot | None) -> TableSnapshot:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0)
        return TableSnapshot(taken, {}, {})

    shared = CachedSnapshot(take)
    assert [p.version for p in await asyncio.gather(*(shared.get() for _ in range(10)))] == [1] * 10
    assert taken == 1


async def test_one_that_leaves_while_it_takes_leaves_it_to_the_next() -> None:
    began, never = asyncio.Event(), asyncio.Event()
    calls = 0

    async def take(last: TableSnapshot | None) -> TableSnapshot:
        nonlocal calls
        calls += 1
        began.set()
        if calls == 1:
            await never.wait()
        return TableSnapshot(calls, {}, {})

    shared = CachedSnapshot(take)
    first = asyncio.create_task(shared.get())
    await began.wait()
    second = asyncio.create_task(shared.get())
    first.cancel()
    assert (await second).version == 2
    await asyncio.gather(first, return_exceptions=True)


async def test_all_are_told_of_one_failure_and_it_is_not_asked_again_at_once() -> None:
    calls = 0

    async def take(last: TableSnapshot | None) -> TableSnapshot:
        nonlocal calls
        calls += 1
        raise StoreUnavailable("Redis is away")

    shared = CachedSnapshot(take)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await shared.get()
    assert calls == 1


@pytest.mark.leaves_inflight
async def test_a_viewer_sees_everything_and_then_what_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_snapshot, "PERIOD_SECS", 0.0)
    monkeypatch.setattr(cached_snapshot, "_REST_FACTOR", 0.0)
    await world.run("a")
    dashboard_feed = DashboardFeed(world.store, lambda: "f0")
    with dashboard_feed.listing(ALL) as listing, dashboard_feed.listing(ALL) as same:
        assert listing is same
        viewer, late = Viewer(dashboard_feed, listing), Viewer(dashboard_feed, same)
        first = read(await viewer.next())
        assert [first[part]["kind"] for part in ("cluster", "requests")] == ["snapshot", "snapshot"]
        assert [row["id"] for row in first["requests"]["inflight"]["set"]] == ["a"]
        assert {row["id"] for row in first["cluster"]["replicas"]["set"]} == {"f0", "f1", "w0", "w1"}
        await world.append(1, rid="a")
        await world.finish(1, rid="a")
        await world.store.heartbeat("w1", Role.WORKER, {"finished": True}, [])
        await world.expire("w1")
        second = read(await viewer.next())
        assert second["requests"]["inflight"] == {"set": [], "gone": ["a"]}
        assert [(row["id"], row["status"]) for row in second["requests"]["finished"]["set"]] == [("a", "completed")]
        changed = {row["id"]: row for row in second["cluster"]["replicas"]["set"]}
        assert (changed["w0"], changed["w1"]["state"]) == ({"id": "w0", "inflight": 0}, "left")
        assert second["cluster"]["point"][4] == 1
        assert read(await late.next())["cluster"]["kind"] == "snapshot"
    assert dashboard_feed._listings == {}


@pytest.mark.leaves_inflight
async def test_a_worker_whose_lease_ran_out_is_shown_dead_before_and_after_it_is_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_snapshot, "PERIOD_SECS", 0.0)
    dashboard_feed = DashboardFeed(world.store, lambda: "f0")

    async def states() -> dict[str, str]:
        dashboard_feed.cluster.due_at = 0.0
        return {name: row["state"] for name, row in (await dashboard_feed.cluster.get()).tables["replicas"].items()}

    assert (await states())["w1"] == "ready"
    for _ in range(3):
        world.shift_clock(14)  # of a lease of 30 s
        await world.heartbeat("w1")
        shown = await states()
    assert shown["w1"] == "dead"
    await world.heartbeat("w1")
    assert (await states())["w1"] == "dead"
    stranger = DashboardFeed(world.store, lambda: "f1")
    assert (await stranger.cluster.get()).tables["replicas"]["w1"]["state"] == "dead"
    await world.store.heartbeat("w0", Role.WORKER, {"finished": True}, [])
    await world.store.leave("w0", Role.WORKER)
    assert (await states())["w0"] == "left"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"order": "x"}, "order"),
        ({"status": "failed"}, "status"),
        ({"outcome": "queued"}, "outcome"),
        ({"q": "x" * 129}, "q"),
        ({"rows": "0"}, "rows"),
        ({"rows": "201"}, "rows"),
        ({"rows": "x"}, "rows"),
    ],
)
def test_a_wrong_selection_is_refused(query: dict[str, str], name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        overview.parse_listing_query(query)
    assert (refusal.value.status, refusal.value.param) == (400, name)


def test_a_selection_has_defaults() -> None:
    assert overview.parse_listing_query({}) == ALL
    assert overview.parse_listing_query({"q": " Two  WORDS "}).words == ("two", "words")


def read(event: bytes) -> Any:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    return orjson.loads(event[6:])


@pytest.mark.leaves_inflight
async def test_of_many_owners_those_are_shown_that_wait_for_longest(world: World) -> None:
    for number in range(QUEUE_ROWS + 20):
        await world.admit(f"r{number}", owner=f"o{number}")
        world.shift_clock(0.01)
    table = (await DashboardFeed(world.store, lambda: "f0").cluster.get()).tables["queue"]
    assert sorted(row["owner"] for row in table.values()) == sorted(f"o{number}" for number in range(QUEUE_ROWS))

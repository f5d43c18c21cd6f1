"""A worker that starts or is unhealthy is seen as such, with its last error: listings, metrics and the dashboard."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend.dashboard import cached_snapshot
from frontend.dashboard.dashboard_feed import DashboardFeed
from frontend.exporter import Exporter
from lifecycle.cli import listing, output
from lifecycle.cli.doctor.cluster import check_cluster
from lifecycle.cli.output import Cell
from lifecycle.queries import cluster
from lifecycle.records import Replica
from lifecycle.store.worker_roster import COMPLETIONS, workers_of
from lifecycle.telemetry.metrics import Metrics
from lifecycle.types import ReplicaState, Role
from tests.joining import join
from tests.unit.world import MODEL, World

REFUSED = "the upstream refused\nthe connection"


async def _announce(world: World, worker: str, state: ReplicaState, **about: Any) -> None:
    shown = {"state": state, "models": [MODEL], "concurrency": 8, **about}
    await join(world.store, worker, Role.WORKER, shown, [MODEL])


async def _replica(world: World, name: str) -> Replica:
    [found] = [replica for replica in await cluster.replicas(world.store) if replica.id == name]
    return found


async def test_the_error_of_an_unhealthy_worker_is_in_the_listing_until_it_has_recovered(world: World) -> None:
    await _announce(world, "w0", ReplicaState.UNHEALTHY, error=REFUSED, probe_in_secs=4.0)
    sick = await _replica(world, "w0")
    assert (sick.to_json()["state"], sick.to_json()["error"]) == ("unhealthy", REFUSED)
    await _announce(world, "w0", ReplicaState.READY, error="")
    assert "error" not in (await _replica(world, "w0")).to_json()


async def test_nobody_can_change_what_the_process_knows_of_a_replica(world: World) -> None:
    about = {"endpoints": {"rerank": "native"}, "max_model_len": {MODEL: 7}}
    await _announce(world, "w0", ReplicaState.READY, **about, counted={"lost": 1}, unreplicated={"cancel": 2})
    replica = await _replica(world, "w0")
    [worker] = [each for each in workers_of(await world.store.roster(), 1.0) if each.id == "w0"]
    known = (replica.endpoints, replica.counted, replica.unreplicated, worker.endpoints, worker.max_model_len)
    for shared in (*known, COMPLETIONS):
        with pytest.raises(TypeError):
            shared["rerank"] = 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("state", "color"),
    [
        ("starting", output.CYAN),
        ("ready", output.GREEN),
        ("unhealthy", output.RED),
        ("paused", output.YELLOW),
        ("draining", output.YELLOW),
    ],
)
async def test_each_state_has_its_colour_in_a_table(world: World, state: str, color: int) -> None:
    await _announce(world, "w0", ReplicaState(state))
    row = dict(zip(listing.REPLICA_HEADS, listing.replica_row(await _replica(world, "w0"), 0.0), strict=True))
    assert (row["STATE"], row["ERROR"]) == (Cell(state, color), output.NONE)


async def test_a_table_shows_the_beginning_of_an_error_on_one_line(world: World) -> None:
    await _announce(world, "w0", ReplicaState.UNHEALTHY, error=REFUSED)
    assert listing.replica_row(await _replica(world, "w0"), 0.0)[-1] == "the upstream refused the connection"
    await _announce(world, "w0", ReplicaState.UNHEALTHY, error="x" * 1000)
    assert listing.replica_row(await _replica(world, "w0"), 0.0)[-1] == "x" * 80 + "…"


async def test_doctor_says_how_many_workers_are_not_ready(world: World) -> None:
    await _announce(world, "w0", ReplicaState.STARTING)
    await _announce(world, "w1", ReplicaState.UNHEALTHY, error=REFUSED)
    [finding] = [each for each in await check_cluster(world.store) if each.check == "workers"]
    assert (finding.level, finding.message) == ("ok", "2 alive, 1 starting, 1 unhealthy")


async def test_the_metrics_have_every_state_of_the_replicas_and_of_the_slots(world: World) -> None:
    await _announce(world, "w0", ReplicaState.UNHEALTHY, error=REFUSED)
    await _announce(world, "w1", ReplicaState.READY)
    exporter = Exporter(world.store, Metrics())
    await exporter.refresh()
    found = {
        (family.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exporter.render().decode())
        for sample in family.samples
    }
    replicas = {key[1:]: value for key, value in found.items() if key[0] == "lifecycle_cluster_replicas"}
    living = {("frontend", "ready"): 2, ("worker", "ready"): 1, ("worker", "unhealthy"): 1}
    assert replicas == {(role, state): living.get((role, state), 0) for role in Role for state in ReplicaState}
    slots = {key[1:]: value for key, value in found.items() if key[0] == "lifecycle_cluster_worker_slots"}
    assert slots == {(MODEL, "unhealthy"): 8, (MODEL, "ready"): 8}


async def test_the_dashboard_drops_an_error_that_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_snapshot, "PERIOD_SECS", 0.0)
    monkeypatch.setattr(cached_snapshot, "_REST_FACTOR", 0.0)
    feed = DashboardFeed(world.store, lambda: "f0")
    await _announce(world, "w0", ReplicaState.UNHEALTHY, error=REFUSED)
    sick = await feed.cluster.get()
    assert sick.tables["replicas"]["w0"]["error"] == REFUSED
    assert sick.tables["replicas"]["w1"]["error"] is None
    await _announce(world, "w0", ReplicaState.READY)
    well = await feed.cluster.get()
    assert well.tables["replicas"]["w0"]["error"] is None
    assert b'"error":null' in well.delta


async def test_the_metric_of_unreplicated_writes_adds_up_over_all_processes_and_never_falls(world: World) -> None:
    exporter = Exporter(world.store, Metrics())

    async def announced(pid: int, **unreplicated: int) -> None:
        await _announce(world, f"w{pid}", ReplicaState.READY, host="h", pid=pid, unreplicated=unreplicated)

    async def cancels() -> float:
        exporter._taken_at = float("-inf")
        await exporter.refresh()
        families = text_string_to_metric_families(exporter.render().decode())
        [found] = [family for family in families if family.name == "lifecycle_cluster_unreplicated_writes"]
        return next(sample.value for sample in found.samples if sample.labels == {"operation": "cancel"})

    assert await cancels() == 0
    await announced(1, cancel=2)
    await announced(2, cancel=1, take=5)
    assert await cancels() == 3
    await announced(1, cancel=4)
    assert await cancels() == 5
    await announced(2)  # another process with the same id
    assert await cancels() == 5
    await announced(2, cancel=1)
    assert await cancels() == 6

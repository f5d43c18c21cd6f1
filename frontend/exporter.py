"""Export metrics: those of this process, and those of the cluster from a snapshot of Redis.

Every frontend exports the same series of the cluster; combine them with `max`. While Redis is unavailable they are
left out, so that no outdated value is exported.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import attrgetter

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from lifecycle.errors import StoreError, StoreFull
from lifecycle.queries import cluster
from lifecycle.records import Replica
from lifecycle.store.permissions import check_usable
from lifecycle.store.replicated_commands import REPLICATED
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.types import Labels, ReplicaState, Role

_MAX_AGE_SECS = 1.0  # of the snapshot, before it is taken again
_LABELS = ["model", "endpoint", "request_type"]
_SERIES_OF = attrgetter("role", "state", "models", "concurrency", "stuck", "reasserting")


class Exporter(Collector):
    """Render the metrics: `await refresh()`, then `render()`, which may run in a thread."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._registry = metrics.registry
        self._cluster_registry = CollectorRegistry()
        self._cluster_registry.register(self)
        self._snapshot: cluster.ClusterSnapshot | None = None
        self._taken_at = float("-inf")
        self._refreshing = asyncio.Lock()
        self._totals: dict[tuple[str, ...], int] = {}
        self._reaped: dict[str, int] = {}
        self._epochs: tuple[str, ...] = ()
        self._unreplicated = dict.fromkeys(sorted(REPLICATED), 0)
        self._last_unreplicated: dict[tuple[str, int], Mapping[str, int]] = {}  # by host and pid

    async def refresh(self) -> None:
        """Take a new snapshot unless the last one is recent. While Redis is unavailable there is none.

        A Redis that refuses what a frontend needs is unavailable; one whose memory is full only takes nothing new.
        """
        async with self._refreshing:
            if time.monotonic() - self._taken_at < _MAX_AGE_SECS:
                return
            try:
                with suppress(StoreFull):
                    await check_usable(self._store, Role.FRONTEND)
                snapshot = await cluster.snapshot(self._store, details=False)
            except StoreError:
                self._snapshot = None
                return
            self._clamp(snapshot)
            self._add_unreplicated(snapshot.replicas)
            self._snapshot = snapshot
            self._taken_at = time.monotonic()

    def render(self) -> bytes:
        """Return all series in Prometheus's text format."""
        return generate_latest(self._registry) + generate_latest(self._cluster_registry)

    def _clamp(self, snapshot: cluster.ClusterSnapshot) -> None:
        """Keep counters from decreasing within an epoch: after a failover Prometheus would take that for a reset."""
        if snapshot.epochs != self._epochs:
            self._epochs, self._totals, self._reaped = snapshot.epochs, {}, {}
        for labels, number in snapshot.totals.items():
            self._totals[labels] = max(number, self._totals.get(labels, 0))
        for role in Role:
            self._reaped[role] = max(snapshot.reaped.get(role, 0), self._reaped.get(role, 0))

    def _add_unreplicated(self, replicas: list[Replica]) -> None:
        """Add what has been counted by each process since the last snapshot."""
        counted = {(replica.host, replica.pid): replica.unreplicated for replica in replicas if replica.unreplicated}
        for process, counts in counted.items():
            before = self._last_unreplicated.get(process, {})
            for script, number in counts.items():
                since = before.get(script, 0)
                self._unreplicated[script] += number - since if number >= since else number  # less: another process
        self._last_unreplicated = counted

    def describe(self) -> list[Metric]:
        """Return nothing, so that the registry does not collect at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the cluster's series; none while Redis is unavailable."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        groups = snapshot.inflight.groups
        inflight = GaugeMetricFamily(
            "lifecycle_cluster_inflight_requests",
            "Admitted requests that have not ended, cluster-wide.",
            labels=_LABELS,
        )
        # A group with requests that ended is exported as 0, so that its series does not disappear.
        for labels in sorted({tuple(t[:3]) for t in self._totals} | {tuple(g) for g in groups}):
            count = groups.get(Labels(*labels), cluster.Count())
            inflight.add_metric(list(labels), count.inflight)
        yield inflight
        queued: dict[str, int] = defaultdict(int)
        for name in {t[0] for t in self._totals}:
            queued[name] = 0
        for group, count in groups.items():
            queued[group.model] += count.queued
        yield _gauges("lifecycle_cluster_queued_requests", "Requests that have not started.", "model", queued)
        bodies = dict.fromkeys(queued, 0) | snapshot.queued_bytes
        yield _gauges("lifecycle_cluster_queued_bytes", "Bodies of requests that have not started.", "model", bodies)
        total = CounterMetricFamily(
            "lifecycle_cluster_requests", "Requests ended, cluster-wide.", labels=[*_LABELS, "status", "error_type"]
        )
        for key, number in sorted(self._totals.items()):
            total.add_metric(list(key), number)
        yield total
        yield from _replicas(snapshot.replicas)
        reaped = CounterMetricFamily(
            "lifecycle_cluster_reaped_requests",
            "Requests of expired replicas that were ended or moved.",
            labels=["role"],
        )
        for role_name, number in sorted(self._reaped.items()):
            reaped.add_metric([role_name], number)
        yield reaped
        unreplicated = CounterMetricFamily(
            "lifecycle_cluster_unreplicated_writes",
            "Writes that fewer replicas of Redis than wanted confirmed in time.",
            labels=["operation"],
        )
        for operation, number in self._unreplicated.items():
            unreplicated.add_metric([operation], number)
        yield unreplicated
        now, oldest = snapshot.inflight.as_of, snapshot.oldest_created_at
        yield GaugeMetricFamily(
            "lifecycle_cluster_oldest_inflight_seconds",
            "Age of the oldest request that has not ended.",
            value=max(0.0, now - oldest) if oldest is not None else 0.0,
        )
        yield GaugeMetricFamily(
            "lifecycle_cluster_webhooks_waiting",
            "Webhooks that are not delivered yet.",
            value=snapshot.webhooks_waiting,
        )
        yield GaugeMetricFamily(
            "lifecycle_cluster_snapshot_age_seconds",
            "Age of the snapshot that the cluster's series show.",
            value=time.monotonic() - self._taken_at,
        )


def _replicas(replicas: list[Replica]) -> Iterator[Metric]:
    """Yield the series about replicas. A state without replicas is exported as 0 where that is useful to alert on."""
    living: Counter[tuple[str, str]] = Counter()
    reasserting = dict.fromkeys((role.value for role in Role), 0)
    stuck: Counter[str] = Counter()
    slots: Counter[tuple[str, str]] = Counter()
    # Of thousands of replicas most are alike, and counting those that are is the cheapest step.
    for alike, number in Counter(map(_SERIES_OF, replicas)).items():
        role, state, models, concurrency, engines_stuck, shards = alike
        living[role.value, str(state)] += number
        reasserting[role.value] += number * bool(shards)
        for model in models:
            stuck[model] += number * engines_stuck
            slots[model, str(state)] += number * (concurrency or 0)
    states = dict.fromkeys((role.value, state.value) for role in Role for state in ReplicaState)
    family = GaugeMetricFamily("lifecycle_cluster_replicas", "Replicas that hold a lease.", labels=["role", "state"])
    for role_and_state in sorted(states | living):
        family.add_metric(role_and_state, living[role_and_state])
    yield family
    yield _gauges(
        "lifecycle_cluster_reasserting_replicas",
        "Replicas that have not told Redis again what they hold, after it has lost data.",
        "role",
        reasserting,
    )
    family = GaugeMetricFamily(
        "lifecycle_cluster_worker_slots",
        "Requests that the live workers can run at the same time, by the state of the worker.",
        labels=["model", "state"],
    )
    for model_and_state, slots_of_both in sorted(slots.items()):
        family.add_metric(model_and_state, slots_of_both)
    yield family
    yield _gauges("lifecycle_engines_stuck", "Engines that did not end when killed, cluster-wide.", "model", stuck)


def _gauges(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family

"""Our counters look like prometheus_client's own."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from lifecycle.telemetry.collectors import Counter, Gauge, Histogram

BOUNDS = (0.005, 1.0, 64, 131072)
VALUES = (0.0, 0.005, 0.0051, 1.0, 63.9, 64, 131072, 1e9)


def test_they_are_shown_as_its_own_are() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counters = (
        prometheus_client.Counter("c", "A counter.", ("a", "b"), registry=theirs),
        Counter("c", "A counter.", ("a", "b")),
    )
    gauges = prometheus_client.Gauge("g", "A gauge.", ("a",), registry=theirs), Gauge("g", "A gauge.", ("a",))
    histograms = (
        prometheus_client.Histogram("h", "A histogram.", ("a",), buckets=BOUNDS, registry=theirs),
        Histogram("h", "A histogram.", ("a",), BOUNDS),
    )
    for collector in (counters[1], gauges[1], histograms[1]):
        ours.register(collector)
    for counter in counters:
        counter.labels("x", 'quo"te').inc()
        counter.labels("x", 'quo"te').inc(2)
        counter.labels("y", "")
    for gauge in gauges:
        gauge.labels("x").inc()
        gauge.labels("y").inc(-1)
    for histogram in histograms:
        for value in VALUES:
            histogram.labels("x").observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_one_observation_may_stand_for_many() -> None:
    once, often = (Histogram("h", "A histogram.", ("a",), BOUNDS).labels("x") for _ in range(2))
    for _ in range(5):
        once.observe(0.5)
    often.observe(0.5, 5)
    assert (often.counts, often.sum) == (once.counts, once.sum)

"""Our counters look like prometheus_client's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lifecycle.telemetry.collectors import Distributions, Numbers

BOUNDS = (0.005, 1.0, 64, 131072)
VALUES = (0.0, 0.005, 0.0051, 1.0, 63.9, 64, 131072, 1e9)


def test_they_are_shown_as_its_own_are() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counters = (
        Counter("c", "A counter.", ("a", "b"), registry=theirs),
        Numbers(CounterMetricFamily, "c", "A counter.", ("a", "b")),
    )
    gauges = Gauge("g", "A gauge.", ("a",), registry=theirs), Numbers(GaugeMetricFamily, "g", "A gauge.", ("a",))
    histograms = (
        Histogram("h", "A histogram.", ("a",), buckets=BOUNDS, registry=theirs),
        Distributions("h", "A histogram.", ("a",), BOUNDS),
    )
    for collector in (counters[1], gauges[1], histograms[1]):
        ours.register(collector)
    for counter in counters:
        counter.labels("x", 'quo"te').inc()
        counter.labels("x", 'quo"te').inc(2)
        counter.labels("y", "")
    for gauge in gauges:
        gauge.labels("x").inc()
        gauge.labels("y").dec()
    for histogram in histograms:
        for value in VALUES:
            histogram.labels("x").observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_one_observation_may_stand_for_many() -> None:
    once, often = (Distributions("h", "A histogram.", ("a",), BOUNDS).labels("x") for _ in range(2))
    for _ in range(5):
        once.observe(0.5)
    often.observe(0.5, 5)
    assert (often.counts, often.sum) == (once.counts, once.sum)

"""Count and observe on one event loop, without locks: an observation is an addition, or two.

prometheus_client's own counters take locks and walk over the buckets, ten times for each request. A scrape, which runs
in a thread, may see one of two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class ValueChild:
    """Hold the value of a counter or a gauge for one set of label values."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by


class _ValueCollector(Collector):
    """Collect one value for each set of label values."""

    _type: type[CounterMetricFamily | GaugeMetricFamily]

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self._described = name, help_text, labels
        self._children: dict[tuple[str, ...], ValueChild] = {}

    def labels(self, *values: str) -> ValueChild:
        """Return the child for these label values; it is made if there is none."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = ValueChild()
        return child

    @property
    def total(self) -> int:
        """Return the sum over all label values."""
        return sum(child.value for child in self._children.values())

    def describe(self) -> list[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, child in list(self._children.items()):
            family.add_metric(values, child.value)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        name, help_text, labels = self._described
        return self._type(name, help_text, labels=labels)


class Counter(_ValueCollector):
    """Collect a value that only grows."""

    _type = CounterMetricFamily


class Gauge(_ValueCollector):
    """Collect a value that grows and falls."""

    _type = GaugeMetricFamily


class HistogramChild:
    """Hold the buckets of a histogram for one set of label values."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # observations in each bucket, the last without a bound
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times


class Histogram(Collector):
    """Collect observations in buckets, up to and including the upper bounds given."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._described = name, help_text, labels
        self._bounds = bounds
        self._children: dict[tuple[str, ...], HistogramChild] = {}

    def labels(self, *values: str) -> HistogramChild:
        """Return the child for these label values; it is made if there is none."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = HistogramChild(self._bounds)
        return child

    def describe(self) -> list[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family, bounds = self._family(), (*(str(float(bound)) for bound in self._bounds), "+Inf")
        for values, child in list(self._children.items()):
            cumulative, buckets = 0, []
            for bound, count in zip(bounds, list(child.counts), strict=True):
                cumulative += count
                buckets.append((bound, float(cumulative)))
            family.add_metric(values, buckets, child.sum)
        yield family

    def _family(self) -> HistogramMetricFamily:
        name, help_text, labels = self._described
        return HistogramMetricFamily(name, help_text, labels=labels)

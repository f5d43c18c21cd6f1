"""Counters, gauges and histograms for one event loop that counts: an observation is an addition, or two.

prometheus_client's own take locks and walk over the buckets, ten times a request. A scrape, which runs in a thread,
may see one of two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Number:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by

    def dec(self) -> None:
        self.value -= 1


class Numbers(Collector):
    """A counter or a gauge: one number for each set of labels."""

    def __init__(
        self, family: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, labels: tuple[str, ...]
    ) -> None:
        self._described = family, name, text, labels
        self._numbers: dict[tuple[str, ...], Number] = {}

    def labels(self, *values: str) -> Number:
        number = self._numbers.get(values)
        if number is None:
            number = self._numbers[values] = Number()
        return number

    @property
    def total(self) -> int:
        return sum(number.value for number in self._numbers.values())

    def describe(self) -> list[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, number in list(self._numbers.items()):
            family.add_metric(values, number.value)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        family, name, text, labels = self._described
        return family(name, text, labels=labels)


class Distribution:
    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times


class Distributions(Collector):
    """A histogram: one distribution for each set of labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._described = name, text, labels
        self._bounds = bounds
        self._distributions: dict[tuple[str, ...], Distribution] = {}

    def labels(self, *values: str) -> Distribution:
        distribution = self._distributions.get(values)
        if distribution is None:
            distribution = self._distributions[values] = Distribution(self._bounds)
        return distribution

    def describe(self) -> list[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family, bounds = self._family(), (*(str(float(bound)) for bound in self._bounds), "+Inf")
        for values, distribution in list(self._distributions.items()):
            below, buckets = 0, []
            for bound, count in zip(bounds, list(distribution.counts), strict=True):
                below += count
                buckets.append((bound, float(below)))
            family.add_metric(values, buckets, distribution.sum)
        yield family

    def _family(self) -> HistogramMetricFamily:
        name, text, labels = self._described
        return HistogramMetricFamily(name, text, labels=labels)

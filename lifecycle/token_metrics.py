"""What is counted of each token: it costs an addition and a list index, no lock and no look-up of labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS_SECS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TokenFlow:
    """The tokens of one model in one process."""

    __slots__ = ("count", "gap_counts", "gap_sum_secs")

    def __init__(self) -> None:
        self.count = 0
        self.gap_counts = [0] * (len(BUCKETS_SECS) + 1)
        self.gap_sum_secs = 0.0

    def take(self, tokens: int, gap_secs: float | None) -> None:
        """`tokens` arrived together after `gap_secs`: the first waited, the others did not. None: none came before."""
        self.count += tokens
        if tokens > 1:
            self.gap_counts[0] += tokens - 1
        if gap_secs is not None:
            self.gap_counts[bisect_left(BUCKETS_SECS, gap_secs)] += 1
            self.gap_sum_secs += gap_secs


class TokenFlows(Collector):
    """`output_tokens_total` and `inter_token_latency_seconds`, by model."""

    def __init__(self) -> None:
        self._flows: dict[str, TokenFlow] = {}

    def of(self, model: str) -> TokenFlow:
        flow = self._flows.get(model)
        if flow is None:
            flow = self._flows[model] = TokenFlow()
        return flow

    @property
    def total(self) -> int:
        return sum(flow.count for flow in self._flows.values())

    def describe(self) -> list[Metric]:
        return [*self._families()]

    def collect(self) -> Iterator[Metric]:
        tokens, gaps = self._families()
        for model, flow in list(self._flows.items()):
            tokens.add_metric([model], flow.count)
            total, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS_SECS), "+Inf"), list(flow.gap_counts), strict=True):
                total += count
                buckets.append((bound, float(total)))
            gaps.add_metric([model], buckets=buckets, sum_value=flow.gap_sum_secs)
        yield tokens
        yield gaps

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily("lifecycle_output_tokens", "Tokens received from workers.", labels=["model"]),
            HistogramMetricFamily(
                "lifecycle_inter_token_latency_seconds",
                "Wait between tokens as the frontend saw them.",
                labels=["model"],
            ),
        )

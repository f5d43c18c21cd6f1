"""Define the metrics of one process. The frontend's exporter defines those of the cluster.

Label values are bounded: a model becomes one only after a worker has served it.
"""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from lifecycle.telemetry.collectors import Counter, Gauge, Histogram
from lifecycle.types import ErrorType, Labels, RequestRecord

_REQUEST = ("model", "endpoint", "request_type")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

_SUCCESS = ErrorType.NONE  # a global name: looking a member up in its enum is slow

_C = TypeVar("_C", bound=Collector)


class Metrics:
    """Hold the metrics of this process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_requests: dict[Labels, RequestMetrics] = {}  # bounded as the values of the labels are

        def counter(name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
            return register(Counter(f"lifecycle_{name}", help_text, labels))

        def gauge(name: str, help_text: str, labels: tuple[str, ...]) -> Gauge:
            return register(Gauge(f"lifecycle_{name}", help_text, labels))

        def histogram(name: str, help_text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return register(Histogram(f"lifecycle_{name}", help_text, ("model",), buckets))

        def register(collector: _C) -> _C:
            self.registry.register(collector)
            return collector

        self.started = counter("requests_started", "Requests admitted by this process.", _REQUEST)
        self.requests = counter(
            "requests", "Requests that have ended, by outcome.", (*_REQUEST, "status", "error_type")
        )
        self.inflight = gauge("inflight_requests", "Requests that are inflight, held by this process.", _REQUEST)
        self.queued = gauge(
            "queued_requests", "Inflight requests held by this process that no worker has started.", ("model",)
        )
        self.disconnects = counter(
            "client_disconnects", "Clients that disconnected before their response ended.", ("model", "endpoint")
        )
        self.cancellations = counter("cancellations", "Requests that ended as cancelled.", _REQUEST)
        self.rejections = counter(
            "rejections", "Calls that were refused before admission.", ("model", "endpoint", "reason")
        )
        self.webhooks = counter("webhooks", "Deliveries of webhooks by their result.", ("result",))
        for result in ("delivered", "failed", "given_up", "dropped"):
            self.webhooks.labels(result)  # from 0, so that the first failure is an increase
        self.refused_calls = counter("refused_calls", "Calls of any kind that were refused.", ("status", "reason"))
        self.duration = histogram("request_duration_seconds", "Time from admission to the end.")
        self.first_token = histogram("time_to_first_token_seconds", "Time from admission to the first token.")
        self.queue_wait = histogram("queue_wait_seconds", "Time from admission to the start by a worker.")
        self.cancel_to_stop = histogram(
            "cancel_to_stop_seconds", "Time from a cancel to its confirmation by the worker.", _SHORT_SECONDS
        )
        self.input_length = histogram(
            "input_sequence_tokens", "Prompt length in tokens, where the engine reports it.", _TOKENS
        )
        self.output_length = histogram("output_sequence_tokens", "Tokens generated for one request.", _TOKENS)
        self.output_tokens = counter(
            "output_tokens",
            "Tokens generated, by the engine's report at the end, and by events until then.",
            ("model",),
        )
        self.input_tokens = counter("input_tokens", "Prompt tokens, where the engine reports them.", ("model",))
        self.output_events = counter("output_events", "Events with content of requests that have ended.", ("model",))
        self.orphan_tokens = counter(
            "orphan_tokens",
            "Events of ended requests that came while the client was gone and nobody read, or after a cancel.",
            ("model",),
        )
        self.preemptions = counter(
            "preemptions", "Moves of ended requests back to the queue, each for one of better priority.", ("model",)
        )
        self.token_gaps = histogram(
            "inter_token_latency_seconds", "Time between tokens as the frontend received them.", _SHORT_SECONDS
        )

    def counted(self) -> dict[str, int]:
        """Return what each heartbeat publishes, so that any replica can add it up over the frontends."""
        return {"output_tokens": self.output_tokens.total, "disconnects": self.disconnects.total}

    def of(self, labels: Labels) -> RequestMetrics:
        """Return the metrics of the requests that are counted under these labels."""
        found = self._of_requests.get(labels)
        if found is None:
            found = self._of_requests[labels] = RequestMetrics(self, labels)
        return found


class RequestMetrics:
    """Hold the metrics of the requests with the same labels, so that no request looks each of them up again."""

    def __init__(self, metrics: Metrics, labels: Labels) -> None:
        model = labels.model
        self.started = metrics.started.labels(*labels)
        self.inflight = metrics.inflight.labels(*labels)
        self.queued = metrics.queued.labels(model)
        self.output_tokens = metrics.output_tokens.labels(model)
        self.token_gaps = metrics.token_gaps.labels(model)
        self._metrics = metrics
        self._labels = labels
        self._successes = metrics.requests.labels(*labels, "success", ErrorType.NONE.value)
        self._input_tokens = metrics.input_tokens.labels(model)
        self._output_events = metrics.output_events.labels(model)
        self._orphan_tokens = metrics.orphan_tokens.labels(model)
        self._preemptions = metrics.preemptions.labels(model)
        self._duration = metrics.duration.labels(model)
        self._queue_wait = metrics.queue_wait.labels(model)
        self._first_token = metrics.first_token.labels(model)
        self._output_length = metrics.output_length.labels(model)

    def count(self, error_type: ErrorType) -> None:
        """Count a request that has ended; `ErrorType.NONE` is a success."""
        if error_type is _SUCCESS:
            self._successes.value += 1
            return
        self._metrics.requests.labels(*self._labels, "error", error_type.value).inc()
        if error_type is ErrorType.CANCELLED:
            self._metrics.cancellations.labels(*self._labels).inc()

    def observe_end(self, record: RequestRecord) -> None:
        """Observe durations and lengths from the terminal record. All its times are by Redis's clock."""
        self._output_events.value += record.output_events
        self._orphan_tokens.value += record.orphan_events
        self._preemptions.value += record.preemptions
        self._output_length.observe(record.output_tokens)
        if (secs := record.duration_secs) is not None:
            self._duration.observe(secs)
        if (secs := record.queue_secs) is not None:
            self._queue_wait.observe(secs)
        if (secs := record.first_token_secs) is not None:
            self._first_token.observe(secs)
        if record.input_tokens is not None:
            self._input_tokens.value += record.input_tokens
            self._metrics.input_length.labels(record.model).observe(record.input_tokens)
        if (secs := record.cancel_to_stop_secs) is not None:
            self._metrics.cancel_to_stop.labels(record.model).observe(secs)

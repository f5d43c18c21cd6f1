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

_C = TypeVar("_C", bound=Collector)


class Metrics:
    """Hold the metrics of this process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

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

    def count_request(self, labels: Labels, error_type: ErrorType) -> None:
        """Count a request that has ended; `ErrorType.NONE` is a success."""
        status = "error" if error_type else "success"
        self.requests.labels(*labels, status, error_type.value).inc()
        if error_type is ErrorType.CANCELLED:
            self.cancellations.labels(*labels).inc()

    def observe_end(self, record: RequestRecord) -> None:
        """Observe durations and lengths from the terminal record. All its times are by Redis's clock."""
        self.input_tokens.labels(record.model).inc(record.input_tokens or 0)
        self.output_events.labels(record.model).inc(record.output_events)
        self.orphan_tokens.labels(record.model).inc(record.orphan_events)
        self.preemptions.labels(record.model).inc(record.preemptions)
        for histogram, value in (
            (self.duration, record.duration_secs),
            (self.cancel_to_stop, record.cancel_to_stop_secs),
            (self.queue_wait, record.queue_secs),
            (self.first_token, record.first_token_secs),
            (self.input_length, record.input_tokens),
            (self.output_length, record.output_tokens),
        ):
            if value is not None:
                histogram.labels(record.model).observe(value)

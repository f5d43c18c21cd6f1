"""Trace a request's life: a span such as `chat MODEL` with `queue` on the frontend, and an `attempt` on each worker.

Until `turn_on()` is called, after OpenTelemetry's SDK was set up (`lifecycle.cli.traces`), no spans are made, and an
incoming traceparent is passed on unchanged.
"""

from __future__ import annotations

import re
import time

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from lifecycle.store.results import Ended, Start
from lifecycle.telemetry import gen_ai
from lifecycle.types import ErrorType, Labels, RequestRecord

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_FAILURES = frozenset(ErrorType) - {ErrorType.NONE, ErrorType.CANCELLED}
_propagator = TraceContextTextMapPropagator()
_tracer: Tracer | None = None


def turn_on() -> None:
    """Send spans to the process's tracer provider from now on."""
    global _tracer
    _tracer = trace.get_tracer("lifecycle")


def is_on() -> bool:
    """Return whether spans are made."""
    return _tracer is not None


def incoming(given: str) -> str:
    """Return the traceparent for a call's request: of the current HTTP span if there is one, else the client's.

    `given` is the client's header, '' without one. An invalid header counts as none.
    """
    current = _traceparent(trace.get_current_span()) if is_on() else ""
    return current or (given if given and _TRACEPARENT.fullmatch(given) else "")


class RequestSpan:
    """Span a request on the frontend that owns it, with a child `queue` for each wait for a worker."""

    def __init__(self, rid: str, labels: Labels, traceparent: str = "") -> None:
        self._span: Span | None = None
        self._queue: Span | None = None
        self.traceparent = traceparent
        if _tracer is not None:
            attributes = gen_ai.request_attributes(labels) | {
                "lifecycle.request.id": rid,
                "lifecycle.endpoint": labels.endpoint,
                "lifecycle.request_type": labels.request_type,
            }
            name = gen_ai.span_name(labels)
            self._span = _tracer.start_span(name, _context(traceparent), SpanKind.CLIENT, attributes)
            self.traceparent = _traceparent(self._span)

    @property
    def trace_id(self) -> str:
        """Return the trace id in hexadecimal; empty when there is none."""
        return self.traceparent[3:35]

    def queued(self) -> None:
        """Begin a `queue` span, unless one is open."""
        if _tracer is not None and self._queue is None:
            self._queue = _tracer.start_span("queue", _context(self.traceparent))

    def started(self) -> None:
        """End the `queue` span."""
        if self._queue is not None:
            self._queue.end()
            self._queue = None

    def end(self, record: RequestRecord) -> None:
        """End the span as the terminal record says."""
        self.started()
        if self._span is not None:
            self._span.set_attributes(gen_ai.response_attributes(record))
            _describe(self._span, record)
            self._span.end()

    def break_off(self, error_type: str) -> None:
        """End the span without a terminal record. `error_type` is `moved` when another frontend has taken over."""
        self.started()
        if self._span is not None:
            _fail(self._span, error_type)
            self._span.end()


class AttemptSpan:
    """Span one attempt on a worker, from its start to its report."""

    def __init__(self, rid: str, model: str, worker: str, start: Start) -> None:
        self._span: Span | None = None
        self._started_ns = time.time_ns()
        self.traceparent = start.traceparent
        if _tracer is not None:
            attributes: dict[str, AttributeValue] = {
                "lifecycle.request.id": rid,
                "lifecycle.model": model,
                "lifecycle.worker": worker,
                "lifecycle.attempt": start.attempt,
            }
            context = _context(start.traceparent)
            self._span = _tracer.start_span("attempt", context, SpanKind.CONSUMER, attributes)
            self.traceparent = _traceparent(self._span)

    def cancelled(self, mode: str) -> None:
        """Note that the engine was told to end."""
        if self._span is not None:
            self._span.add_event("cancel", {"lifecycle.cancel.mode": mode})

    def end(self, ended: Ended | None) -> None:
        """End the span. `ended` is Redis's answer to the worker's report; None when there was none."""
        if self._span is None:
            return
        record = ended.record if ended is not None else None
        if record is None:
            _fail(self._span, ended.what if ended is not None else "unreported")
        else:
            self._note_first_token(self._span, record)
            _describe(self._span, record)
        self._span.end()

    def _note_first_token(self, span: Span, record: RequestRecord) -> None:
        """Add the first token from the record, so that no token costs anything.

        The time after the start is by Redis's clock, the start by this process's.
        """
        if record.first_token_at is None or record.started_at is None or record.first_token_at < record.started_at:
            return  # there was no token, or an earlier attempt produced it
        after_ns = int((record.first_token_at - record.started_at) * 1e9)
        span.add_event("first token", timestamp=self._started_ns + after_ns)


def _describe(span: Span, record: RequestRecord) -> None:
    span.set_attribute("lifecycle.status", record.status.value)
    for name in ("frontend", "worker", "owner", "cancelled_by", "cancelled_via"):
        value = getattr(record, name)
        if value:
            span.set_attribute(f"lifecycle.{name}", value)
    if record.error_type:
        _fail(span, record.error_type)


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    if error_type in _FAILURES:
        span.set_status(Status(StatusCode.ERROR))


def _context(traceparent: str) -> Context:
    """Return the context of a traceparent; an empty context, which begins a trace, if it is not valid."""
    return _propagator.extract({"traceparent": traceparent}, context=Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")

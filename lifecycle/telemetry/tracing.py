"""Spans of a request's life: `request` and its `queue` at the frontend, an `attempt` at each worker that tries it.

Until `turn_on()` was called, by whoever has set up OpenTelemetry's SDK (`lifecycle.cli.traces`), there are none, and
the traceparent that came in is handed on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from lifecycle.store.results import Ended, Start
from lifecycle.types import ErrorType, Labels, RequestRecord

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_propagator = TraceContextTextMapPropagator()
_tracer: Tracer | None = None


def turn_on() -> None:
    """From now on spans go to the process's tracer provider."""
    global _tracer
    _tracer = trace.get_tracer("lifecycle")


def is_on() -> bool:
    return _tracer is not None


def incoming(headers: Mapping[str, str]) -> str:
    """The traceparent under which a call's request goes on: of the HTTP span if there is one, else the client's."""
    given = headers.get("traceparent", "")
    current = _traceparent(trace.get_current_span()) if is_on() else ""
    return current or (given if _TRACEPARENT.fullmatch(given) else "")


class RequestSpan:
    """A request as the frontend that owns it sees it, with a `queue` in it for each wait for a worker."""

    def __init__(self, rid: str, labels: Labels, traceparent: str = "") -> None:
        self._span: Span | None = None
        self._queue: Span | None = None
        self.traceparent = traceparent
        if _tracer is not None:
            attributes = {"lifecycle.request.id": rid, "gen_ai.request.model": labels.model}
            attributes |= {"lifecycle.endpoint": labels.endpoint, "lifecycle.request_type": labels.request_type}
            self._span = _tracer.start_span("request", _context(traceparent), attributes=attributes)
            self.traceparent = _traceparent(self._span)

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    def queued(self) -> None:
        if _tracer is not None and self._queue is None:
            self._queue = _tracer.start_span("queue", _context(self.traceparent))

    def started(self) -> None:
        if self._queue is not None:
            self._queue.end()
            self._queue = None

    def end(self, record: RequestRecord) -> None:
        self.started()
        if self._span is not None:
            _describe(self._span, record)
            self._span.end()

    def break_off(self, error_type: str) -> None:
        """It ends here without a terminal record; `moved` when it goes on under another frontend."""
        self.started()
        if self._span is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.end()


class AttemptSpan:
    """One worker's try, from its start to its report."""

    def __init__(self, rid: str, model: str, worker: str, start: Start) -> None:
        self._span: Span | None = None
        self._started_ns = time.time_ns()
        self.traceparent = start.traceparent
        if _tracer is not None:
            attributes: dict[str, AttributeValue] = {
                "lifecycle.request.id": rid,
                "gen_ai.request.model": model,
                "lifecycle.worker": worker,
                "lifecycle.attempt": start.attempt,
            }
            context = _context(start.traceparent)
            self._span = _tracer.start_span("attempt", context, SpanKind.CONSUMER, attributes)
            self.traceparent = _traceparent(self._span)

    def cancelled(self, mode: str) -> None:
        """The engine was told to end."""
        if self._span is not None:
            self._span.add_event("cancel", {"lifecycle.cancel.mode": mode})

    def end(self, ended: Ended | None) -> None:
        """`ended` is what Redis made of the report; None when there was none."""
        if self._span is None:
            return
        record = ended.record if ended is not None else None
        if record is None:
            self._span.set_attribute("error.type", ended.what if ended is not None else "unreported")
        else:
            self._note_first_token(self._span, record)
            _describe(self._span, record)
        self._span.end()

    def _note_first_token(self, span: Span, record: RequestRecord) -> None:
        """From the record, so that a token costs nothing. Redis's clock gives the distance, ours the start."""
        if record.first_token_at is None or record.started_at is None or record.first_token_at < record.started_at:
            return  # none, or an earlier attempt's
        after_ns = int((record.first_token_at - record.started_at) * 1e9)
        span.add_event("first token", timestamp=self._started_ns + after_ns)


def _describe(span: Span, record: RequestRecord) -> None:
    span.set_attribute("lifecycle.status", record.status.value)
    span.set_attribute("gen_ai.usage.output_tokens", record.output_tokens)
    for role, replica in (("frontend", record.frontend), ("worker", record.worker)):
        if replica:
            span.set_attribute(f"lifecycle.{role}", replica)
    if record.input_tokens is not None:
        span.set_attribute("gen_ai.usage.input_tokens", record.input_tokens)
    if record.finish_reason:
        span.set_attribute("gen_ai.response.finish_reasons", (record.finish_reason,))
    if record.error_type:
        span.set_attribute("error.type", record.error_type)
        if record.error_type != ErrorType.CANCELLED:
            span.set_status(Status(StatusCode.ERROR))


def _context(traceparent: str) -> Context:
    """Of a traceparent; an empty one, which begins a trace, if it is none."""
    return _propagator.extract({"traceparent": traceparent}, context=Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")

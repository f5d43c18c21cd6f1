"""Export a replica's spans as OpenTelemetry's standard environment variables say.

OTEL_TRACES_EXPORTER=otlp, or an OTEL_EXPORTER_OTLP_ENDPOINT, turns tracing on; the SDK reads the other variables.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lifecycle.telemetry import tracing

log = logging.getLogger(__name__)

_LAST_SPANS_SECS = 2.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted() -> bool:
    """Return whether the environment names a destination for spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter == "otlp" if exporter else any(os.environ.get(name) for name in _ENDPOINTS)


@contextmanager
def exported(service: str) -> Iterator[None]:
    """Export the spans that are made inside, in batches from a thread; the remaining spans are sent at the end."""
    provider = _provider(service) if wanted() else None
    try:
        yield
    finally:
        if provider is not None:
            _shut_down(provider)


def _shut_down(provider: Any) -> None:
    """Send the remaining spans, at most for two seconds: a drained replica does not wait for a dead collector."""
    sending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    sending.start()
    sending.join(_LAST_SPANS_SECS)
    if sending.is_alive():
        log.warning("the last spans were not sent within %g seconds", _LAST_SPANS_SECS)


def _provider(service: str) -> Any:
    """Return a tracer provider, or None with a warning when spans cannot be exported; the replica serves anyway."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("tracing is off: run pip install 'lifecycle-tracker[otel]', or set OTEL_TRACES_EXPORTER=none")
        return None
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("tracing is off: OTEL_EXPORTER_OTLP_PROTOCOL is %s, but only http/protobuf is supported", protocol)
        return None
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which the SDK reads, override this name.
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracing.turn_on()
    return provider

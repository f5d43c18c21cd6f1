"""The applications of the tests behind the instrumentation of OpenTelemetry and of Sentry, which record every call."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration

import lifecycle
from tests.library_app import make


def instrumented() -> FastAPI:
    """Return the application, as both libraries instrument one of FastAPI."""
    _record()
    app = make()
    FastAPIInstrumentor.instrument_app(app)
    return app


def frontend() -> Any:
    """Return the product's frontend behind the ASGI middlewares of both libraries."""
    _record()
    return OpenTelemetryMiddleware(SentryAsgiMiddleware(lifecycle.fastapi.create_app()))


def _record() -> None:
    """Record all spans and errors of this process, and send them nowhere."""
    trace.set_tracer_provider(TracerProvider())
    # The others, of whatever is installed, take seconds to load.
    integrations = [StarletteIntegration(), FastApiIntegration()]
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0,
        auto_enabling_integrations=False,
        integrations=integrations,
        transport=lambda _: None,
    )

"""A distributed request-lifecycle tracker on Redis: admission, token streams, cancellation, inflight counts."""

__version__ = "0.1.0"

"""A distributed request-lifecycle tracker on Redis: admission, token streams, cancellation, inflight counts."""

from lifecycle.errors import EngineError, LifecycleError, Unavailable

__all__ = ["EngineError", "LifecycleError", "Unavailable", "__version__"]

__version__ = "0.1.0"

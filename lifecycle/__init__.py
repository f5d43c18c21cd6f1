"""A distributed request-lifecycle tracker on Redis: admission, token streams, cancellation, inflight counts.

Public is what `__all__` names; the rest may change. Importing this module loads nothing else: each name is loaded at
its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lifecycle.version import VERSION

if TYPE_CHECKING:
    import lifecycle.fastapi as fastapi
    import lifecycle.testing as testing
    from lifecycle.application.engine import engine
    from lifecycle.application.run import Resumed, Run
    from lifecycle.application.tracker import Tracker
    from lifecycle.application.worker import Worker
    from lifecycle.clients.async_client import AsyncClient
    from lifecycle.clients.client import Client
    from lifecycle.errors import (
        Conflict,
        EngineError,
        InvalidSetting,
        InvalidValue,
        LifecycleError,
        NotFound,
        Overloaded,
        RequestFailed,
        Unavailable,
    )
    from lifecycle.execution.context import EngineContext
    from lifecycle.records import Cancelled, Inflight, InflightFrontend, InflightGroup, ModelQueue, QueueOwner, Replica
    from lifecycle.types import ErrorType, RequestRecord, Status

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "Conflict",
    "EngineContext",
    "EngineError",
    "ErrorType",
    "Inflight",
    "InflightFrontend",
    "InflightGroup",
    "InvalidSetting",
    "InvalidValue",
    "LifecycleError",
    "ModelQueue",
    "NotFound",
    "Overloaded",
    "QueueOwner",
    "Replica",
    "RequestFailed",
    "RequestRecord",
    "Resumed",
    "Run",
    "Status",
    "Tracker",
    "Unavailable",
    "Worker",
    "__version__",
    "engine",
    "fastapi",
    "testing",
]

__version__ = VERSION

_MODULES = {
    "lifecycle.application.engine": ("engine",),
    "lifecycle.application.run": ("Resumed", "Run"),
    "lifecycle.application.tracker": ("Tracker",),
    "lifecycle.application.worker": ("Worker",),
    "lifecycle.clients.async_client": ("AsyncClient",),
    "lifecycle.clients.client": ("Client",),
    "lifecycle.errors": (
        "Conflict",
        "EngineError",
        "InvalidSetting",
        "InvalidValue",
        "LifecycleError",
        "NotFound",
        "Overloaded",
        "RequestFailed",
        "Unavailable",
    ),
    "lifecycle.execution.context": ("EngineContext",),
    "lifecycle.records": (
        "Cancelled",
        "Inflight",
        "InflightFrontend",
        "InflightGroup",
        "ModelQueue",
        "QueueOwner",
        "Replica",
    ),
    "lifecycle.types": ("ErrorType", "RequestRecord", "Status"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("fastapi", "testing")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"lifecycle.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'lifecycle' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Track the requests of a FastAPI application: its lifespan, a response that streams a run, routes for all requests.

    app = FastAPI(lifespan=lifecycle.fastapi.lifespan)
    app.include_router(lifecycle.fastapi.router())

    @app.post("/agent")
    async def agent(tracked: lifecycle.fastapi.Tracked) -> Response:
        return await tracked.stream(source, model="my-agent")

The names are loaded at their first use. The other modules of this package serve HTTP for the product's own frontend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle.fastapi.connected import connect, lifespan
    from lifecycle.fastapi.frontend_app import FrontendApp
    from lifecycle.fastapi.router import router
    from lifecycle.fastapi.tracked import Tracked, TrackedCall

__all__ = ["Tracked", "TrackedCall", "connect", "create_app", "lifespan", "router"]

_MODULE_OF = {
    "Tracked": "tracked",
    "TrackedCall": "tracked",
    "connect": "connected",
    "lifespan": "connected",
    "router": "router",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'lifecycle.fastapi' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"lifecycle.fastapi.{module}"), name)
    return value


def create_app(**settings: Any) -> FrontendApp:
    """Return the product's frontend, with its lifespan: `uvicorn --factory lifecycle.fastapi:create_app`.

    `settings` are those of `LIFECYCLE_*` in lower case, and take precedence over the environment. It may be mounted
    under another application if that application's lifespan enters `app.running()`, since servers run the lifespan of
    the outermost application only. `lifecycle frontend` does more: it bounds the heads and bodies of connections, and
    drains on a signal.

    Raises InvalidSetting; LifecycleError, which names the path, when the module `frontend` is another project's.
    """
    from lifecycle.fastapi.frontend_app import make_app

    return make_app(settings)

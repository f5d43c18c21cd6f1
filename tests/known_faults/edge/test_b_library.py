"""The library that an application with an HTTP of its own needs (b_api, b_control, b_today and b_ideal).

Today `import lifecycle` offers nothing, an application has to use nine inner modules, and a frontend answers no call
that comes without uvicorn's connection: httpx's ASGITransport, Starlette's TestClient, middleware that wraps `send`.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from frontend.app import create_app
from lifecycle.settings import Settings
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from tests.known_faults.reports.kit import chat
from tests.unit.world import MODEL
from tests.waiting import wait_until
from tests.workers import serving

PUBLIC = {
    "AsyncClient",
    "Client",
    "Conflict",
    "EngineError",
    "InvalidSetting",
    "LifecycleError",
    "NotFound",
    "Overloaded",
    "RequestFailed",
    "Tracker",
    "Unavailable",
    "Worker",
    "engine",
}


async def answer_hello(request: dict[str, Any], context: Any) -> AsyncIterator[str]:
    yield "hello "
    yield "world"


def application(settings: Settings) -> Starlette:
    """Return a frontend with a worker in the same process, both of which live as long as its lifespan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Tracker.open(settings, Metrics(), "http://test") as tracker, serving(settings, answer_hello):

            async def live() -> bool:
                return await tracker.model_state(MODEL) == "live"

            await wait_until(live, what="a worker")
            app.mount("/", create_app(tracker))
            yield

    return Starlette(lifespan=lifespan)


def test_the_library_can_be_imported() -> None:
    library: Any = importlib.import_module("lifecycle")
    assert sorted(PUBLIC - set(getattr(library, "__all__", ()))) == []
    assert hasattr(library.Tracker, "connect")


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_frontend_works_under_asgitransport(settings: Settings, stream: bool) -> None:
    app = application(settings)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.post("/v1/chat/completions", json=chat(MODEL, stream=stream))
    assert answer.status_code == 200, answer.text
    assert "world" in answer.text


def test_a_frontend_works_under_testclient(settings: Settings) -> None:
    with TestClient(application(settings), base_url="http://localhost") as http:
        answer = http.post("/v1/chat/completions", json=chat(MODEL))
    assert answer.status_code == 200, answer.text
    assert "world" in answer.text

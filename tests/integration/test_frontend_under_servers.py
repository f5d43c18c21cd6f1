"""The product's frontend as an ASGI application under other servers, mounted, and behind middlewares."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

import lifecycle
from lifecycle.settings import Settings
from tests.cluster import running
from tests.integration.test_fastapi_servers import SERVERS, application, data_of, has_status, server, serving
from tests.keys import Keys
from tests.library import given
from tests.waiting import wait_until

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
APPS = {
    "lifecycle.fastapi:create_app": "",
    "tests.integration.test_frontend_under_servers:mounted": "/llm",
    "tests.instrumented_app:frontend": "",
}


def mounted() -> FastAPI:
    """Return an application that has the frontend mounted under /llm, behind a middleware."""
    inner = lifecycle.fastapi.create_app()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner.running():
            yield

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = FastAPI(lifespan=lifespan)
    app.mount("/llm", inner)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


@pytest.mark.parametrize("app", [application(name) for name in APPS])
@pytest.mark.parametrize("name", [server(name) for name in SERVERS])
async def test_calls_streams_and_disconnects(settings: Settings, tmp_path: Path, name: str, app: str) -> None:
    prefix = APPS[app]
    async with running(settings, tmp_path, frontends=0) as cluster:
        await cluster.worker("slow", echo_tokens_per_sec=20.0)
        async with (
            serving(settings, name, app, tmp_path) as http,
            lifecycle.AsyncClient(**given(settings)) as client,
        ):
            await wait_until(lambda: serves_both(client))

            async def answers() -> bool:
                whole = await http.post(prefix + "/v1/chat/completions", json={**CHAT, "stream": False})
                return whole.status_code == 200

            await wait_until(answers)
            streamed = await http.post(prefix + "/v1/chat/completions", json=CHAT)
            assert (streamed.status_code, data_of(streamed.text)[-1]) == (200, "[DONE]")
            assert (await http.post(prefix + "/v1/chat/completions", json={})).status_code == 400
            assert (await http.get(prefix + "/ready")).status_code == 200
            assert (await http.get(prefix + "/nothing")).status_code == 404
            endless = {**CHAT, "model": "slow", "echo_repeat": 10_000}
            headers = {"x-request-id": "gone"}
            async with http.stream("POST", prefix + "/v1/chat/completions", json=endless, headers=headers) as response:
                lines = response.aiter_lines()
                await anext(lines)
            await wait_until(lambda: has_status(client, "gone", "cancelled"))
            assert (await client.get("gone")).cancelled_by == "disconnect"
            unary = asyncio.create_task(
                http.post(
                    prefix + "/v1/chat/completions",
                    json={**endless, "stream": False},
                    headers={"x-request-id": "gone-unary"},
                )
            )
            await wait_until(lambda: runs(client, "gone-unary"))
            unary.cancel()
            await wait_until(lambda: has_status(client, "gone-unary", "cancelled"))


async def serves_both(client: lifecycle.AsyncClient) -> bool:
    models = {model for replica in await client.replicas() if replica.state == "ready" for model in replica.models}
    return {"echo", "slow"} <= models


async def runs(client: lifecycle.AsyncClient, rid: str) -> bool:
    return rid in [record.id for record in await client.requests(status="running")]


def test_inside_a_test_client(settings: Settings) -> None:
    with TestClient(lifecycle.fastapi.create_app(**given(settings)), base_url="http://localhost") as client:
        assert client.get("/ready").status_code == 200
        assert client.get("/v1/models").json()["data"] == []
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 404


def test_before_its_lifespan_it_says_what_to_do(settings: Settings) -> None:
    client = TestClient(lifecycle.fastapi.create_app(**given(settings)))
    with pytest.raises(lifecycle.LifecycleError, match="lifespan"):
        client.get("/ready")


def test_a_module_frontend_of_the_users_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("frontend")
    theirs.__file__ = "/their/project/frontend.py"
    monkeypatch.setitem(sys.modules, "frontend", theirs)
    with pytest.raises(lifecycle.LifecycleError, match=r"/their/project/frontend\.py"):
        lifecycle.fastapi.create_app()


def test_a_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(lifecycle.InvalidSetting, match="SHARDS"):
        lifecycle.fastapi.create_app(shards=0)


@pytest.mark.parametrize("app", [application(name) for name in APPS])
@pytest.mark.parametrize("name", [server(name) for name in SERVERS])
async def test_keys_decide(settings: Settings, tmp_path: Path, name: str, app: str) -> None:
    keys = Keys.make(tmp_path)
    guarded = settings.model_copy(update={"api_keys": str(keys.file)})
    message = {"model": "nobody", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    async with serving(guarded, name, app, tmp_path) as http:
        for path, caller, status in (
            ("/v1/models", "", 401),
            ("/v1/models", "acme", 200),
            ("/v1/inflight", "acme", 403),
            ("/v1/inflight", "ops", 200),
            ("/v1/requests/nobody", "acme", 404),
        ):
            headers = keys.bearer(caller) if caller else {}
            assert (await http.get(APPS[app] + path, headers=headers)).status_code == status, (path, caller)
        for headers, status, kind in (
            ({}, 401, "authentication_error"),
            ({"x-api-key": "wrong"}, 401, "authentication_error"),
            ({"x-api-key": keys.of["acme"]}, 404, "not_found_error"),
        ):
            answer = await http.post(APPS[app] + "/v1/messages", json=message, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
            assert answer.headers["request-id"] == answer.headers["x-request-id"]

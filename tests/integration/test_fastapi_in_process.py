"""An application with `lifecycle.fastapi` inside test clients, and who may see what through its router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

import lifecycle
from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.settings import Settings
from tests.conftest import MakeSettings
from tests.library import Source, connect, given
from tests.library_app import add_routes, broken, three


def application(settings: Settings, **more: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with lifecycle.fastapi.connect(app, endpoint="agent", **{**given(settings), **more}) as tracker:
            assert tracker.settings.endpoint == "agent"
            yield

    return FastAPI(lifespan=lifespan)


def test_the_test_client_collects_the_whole_answer(settings: Settings) -> None:
    with TestClient(add_routes(application(settings))) as client:
        answer = client.post("/three", headers={"x-request-id": "mine"})
        assert answer.text.endswith('id: 1-3\ndata: {"n":3}\n\ndata: [DONE]\n\n')
        record = client.get("/v1/requests/mine").json()
        assert (record["status"], record["endpoint"], record["output_events"]) == ("completed", "agent", 3)
        assert client.get("/v1/requests/mine/stream", headers={"last-event-id": "1-2"}).text.count("data:") == 2
        assert client.get("/v1/requests/mine/stream", headers={"last-event-id": "1-3"}).status_code == 204
        assert client.get("/v1/requests/mine/stream", headers={"last-event-id": "x"}).status_code == 400
        assert client.get("/v1/requests/none").status_code == 404
        told = client.get("/v1/requests/mine/timeline").json()["data"]
        assert [entry["what"] for entry in told] == ["admitted", "started", "first_event", "attempt_ended", "ended"]
        assert client.post("/v1/requests/cancel", json={"model": "three"}).json()["matched"] == 0
        assert client.post("/v1/requests/cancel", json={}).status_code == 400
        assert client.post("/v1/requests/cancel", json={"modle": "three"}).status_code == 400
        assert client.post("/v1/requests/mine/cancel").json()["status"] == "completed"
        assert client.post("/v1/requests/mine/cancel", json={"mode": "x"}).status_code == 400
        assert client.post("/v1/requests/mine/cancel", content=b"[").status_code == 400
        assert client.get("/v1/requests?limit=0").status_code == 400
        assert [replica["role"] for replica in client.get("/v1/replicas").json()["data"]] == ["frontend"]
        lines = client.post("/broken", headers={"accept": "application/x-ndjson"}).text.splitlines()
        assert (lines[0], len(lines)) == ('"first"', 2)


async def test_the_transport_of_httpx_works_too(settings: Settings) -> None:
    app = add_routes(application(settings))
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            answer = await client.post("/three")
            assert answer.text.endswith("data: [DONE]\n\n")
            rid = answer.headers["x-request-id"]
            assert (await client.get(f"/v1/requests/{rid}")).json()["status"] == "completed"


def test_without_a_lifespan_the_error_says_what_to_do() -> None:
    client = TestClient(add_routes(FastAPI()))
    with pytest.raises(lifecycle.LifecycleError, match="lifespan"):
        client.post("/three")


def test_callers_see_and_end_their_own(settings: Settings) -> None:
    def owner(request: Request) -> str | None:
        return request.headers.get("x-user")

    app = application(settings, owner=owner)

    @app.post("/three")
    async def _three(tracked: lifecycle.fastapi.Tracked) -> Response:
        assert tracked.owner == "ann"
        return await tracked.stream(three(), model="three", labels={"user": tracked.owner})

    app.include_router(lifecycle.fastapi.router(owner))
    with TestClient(app) as client:
        rid = client.post("/three", headers={"x-user": "ann"}).headers["x-request-id"]
        ann, bob = {"x-user": "ann"}, {"x-user": "bob"}
        assert client.get("/v1/requests", headers=ann).json()["data"][0]["owner"] == "ann"
        assert client.get("/v1/requests", headers=bob).json()["data"] == []
        assert client.get(f"/v1/requests/{rid}", headers=ann).status_code == 200
        for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/cancel"), ("DELETE", "")):
            assert client.request(method, f"/v1/requests/{rid}{path}", headers=bob).status_code == 404
        assert client.get("/v1/requests", headers={"x-user": ""}).status_code == 401
        assert client.get("/v1/inflight", headers=ann).status_code == 403
        assert client.get("/v1/requests?owner=bob", headers=ann).json()["data"] == []


async def test_without_an_owner_only_this_host_and_operators_are_served(make_settings: MakeSettings) -> None:
    operator, kept = new_key("ops", KeyRole.OPERATOR)
    plain, also_kept = new_key("app", KeyRole.CLIENT)
    app = add_routes(application(make_settings(api_keys=f"{kept.line},{also_kept.line}")))

    async def status_for(address: str | None, **headers: str) -> int:
        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "client": None if address is None else (address, 1)}, receive, send)

        transport = httpx2.ASGITransport(called)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await client.get("/v1/requests", headers=sent)).status_code

    async with app.router.lifespan_context(app):
        assert await status_for("192.0.2.1") == 403
        assert await status_for("192.0.2.1", authorization=f"Bearer {operator}") == 200
        assert await status_for("192.0.2.1", x_api_key=operator) == 200
        assert await status_for("192.0.2.1", x_api_key=plain) == 403
        assert await status_for("192.0.2.1", authorization="Bearer x") == 403
        assert [await status_for(near) for near in ("127.0.0.1", "127.1.2.3", "::1")] == [200, 200, 200]
        # Servers name no address, or an empty one, for a call over a Unix socket, at which a proxy may be.
        assert [await status_for(unix) for unix in (None, "", "unix:/run/app.sock")] == [403, 403, 403]
        assert await status_for(None, x_api_key=operator) == 200


def test_ids_of_clients_may_be_ignored(settings: Settings) -> None:
    with TestClient(add_routes(application(settings, request_id_header=False))) as client:
        answers = [client.post("/three", headers={"x-request-id": "same"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]


async def test_owners_cancel_many_of_their_own(settings: Settings) -> None:
    def owner(request: Request) -> str | None:
        return request.headers.get("x-user")

    app = application(settings)
    app.include_router(lifecycle.fastapi.router(owner))
    async with app.router.lifespan_context(app), connect(settings) as tracker:
        sources = {user: Source(pause_secs=0.005) for user in ("ann", "bob")}
        runs = [await tracker.track(source.events(), model="m", owner=user) for user, source in sources.items()]
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app", headers={"x-user": "ann"}) as ann:
            assert (await ann.post("/v1/requests/cancel", json={"owner": "bob"})).json()["matched"] == 0
            found = (await ann.post("/v1/requests/cancel", json={"model": "m"})).json()
        assert [record["owner"] for record in found["data"]] == ["ann"]
        assert found["data"][0]["cancelled_by"] == "owner:ann"
        await asyncio.wait_for(sources["ann"].closed.wait(), 5)
        assert not sources["bob"].closed.is_set()
        for run in runs:
            await run.aclose()


def test_a_refused_call_has_its_status(settings: Settings) -> None:
    app = application(settings)

    @app.post("/broken")
    async def _broken(tracked: lifecycle.fastapi.Tracked) -> Response:
        tracked.tracker.draining = True
        return await tracked.stream(broken(), model="broken")

    with TestClient(app) as client:
        answer = client.post("/broken")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "service_unavailable"


def test_a_submission_that_is_refused_has_its_status(settings: Settings) -> None:
    app = application(settings)

    @app.post("/submit")
    async def _submit(tracked: lifecycle.fastapi.Tracked) -> Response:
        try:
            await tracked.tracker.submit({"model": "none", "messages": []}, id=tracked.id)
        except lifecycle.LifecycleError as refused:
            return lifecycle.fastapi.refusal(refused, tracked.id)
        raise AssertionError

    with TestClient(app) as client:
        unknown = client.post("/submit", headers={"x-request-id": "mine"})
        assert (unknown.status_code, unknown.headers["x-request-id"]) == (404, "mine")
        assert unknown.json()["error"]["type"] == "not_found_error"
        assert client.post("/submit", headers={"x-request-id": "no id!"}).status_code == 400
    full = lifecycle.fastapi.refusal(lifecycle.Overloaded("full", 2.5), "mine")
    assert (full.status_code, full.headers["retry-after"], full.headers["x-request-id"]) == (429, "3", "mine")
    away = lifecycle.fastapi.refusal(lifecycle.Unavailable("away"), "mine")
    assert (away.status_code, away.headers["x-request-id"]) == (503, "mine")
    assert int(away.headers["retry-after"]) >= 1
    used = lifecycle.fastapi.refusal(lifecycle.Conflict("in use"), "mine")
    assert (used.status_code, used.headers["x-should-retry"]) == (409, "false")

"""`X-Parent-Request-Id` at an application with `lifecycle.fastapi`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI, Request

import lifecycle
from lifecycle.settings import Settings
from tests.library import Source, connect, given
from tests.library_app import add_routes


def owner_of(request: Request) -> str:
    return request.headers.get("x-user", "")


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with lifecycle.fastapi.connect(app, endpoint="agent", owner=owner_of, **given(settings)):
            yield

    app = add_routes(FastAPI(lifespan=lifespan))
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app", timeout=20) as client:
            yield client


async def test_the_header_names_the_parent_of_what_a_route_tracks(settings: Settings, http: httpx2.AsyncClient) -> None:
    async with connect(settings) as elsewhere:
        async with await elsewhere.track(Source(pause_secs=0.01).events(), model="m", id="top", owner="ann") as top:
            headers = {"x-parent-request-id": "top", "x-user": "ann", "x-request-id": "child"}
            assert (await http.post("/three", headers=headers)).status_code == 200
            record = (await http.get("/v1/requests/child")).json()
            assert (record["parent"], record["owner"]) == ("top", "ann")
            tree = (await http.get("/v1/requests/top/tree")).json()
            assert [(node["id"], node["depth"]) for node in tree["data"]] == [("top", 0), ("child", 1)]

            for user in ("bob", ""):
                theirs = await http.post("/three", headers={"x-parent-request-id": "top", "x-user": user})
                assert (theirs.status_code, theirs.json()["error"]["code"]) == (404, "parent_not_found")
            nobodys = await http.post("/three", headers={"x-parent-request-id": "none"})
            assert (nobodys.status_code, nobodys.json()["error"]["code"]) == (404, "parent_not_found")
            assert (await http.post("/three", headers={"x-parent-request-id": "a b"})).status_code == 400
        late = await http.post("/three", headers={"x-parent-request-id": top.id, "x-user": "ann"})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "parent_ended")
        assert late.headers["x-should-retry"] == "false"

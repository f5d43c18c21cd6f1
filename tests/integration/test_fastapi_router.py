"""The router of `lifecycle.fastapi`: calls that it refuses, and streams of requests that others have admitted."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request
from starlette.testclient import TestClient

import lifecycle
from lifecycle.settings import Settings
from tests.integration.test_fastapi_in_process import application
from tests.library_app import add_routes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"status": "inflight", "dry_run": "true"}, "dry_run"),
        ({"status": "inflight", "dry_run": 1}, "dry_run"),
        ({"status": "bogus"}, "status"),
        ({"status": "completed"}, "status"),
        ({"model": 5}, "model"),
        ({"owner": ["ann"]}, "owner"),
        ({"worker": "w" * 513}, "worker"),
        ({"endpoint": "No!"}, "endpoint"),
        ({"modle": "three"}, "modle"),
        ({"older_than_secs": "60"}, "older_than_secs"),
        ({"older_than_secs": True}, "older_than_secs"),
        ({"older_than_secs": -1}, "older_than_secs"),
        ({"older_than_secs": 1e9}, "older_than_secs"),
        ({"model": "three", "mode": "x"}, "mode"),
        ({"model": "three", "reason": 5}, "reason"),
    ],
)
def test_a_selector_that_is_malformed_is_refused(settings: Settings, fields: dict[str, Any], param: str) -> None:
    with TestClient(add_routes(application(settings))) as client:
        answer = client.post("/v1/requests/cancel", json=fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_page_starts_behind_a_request_that_the_caller_may_see(settings: Settings) -> None:
    def owner(request: Request) -> str | None:
        return request.headers.get("x-user")

    app = application(settings, owner=owner)
    app.include_router(lifecycle.fastapi.router(owner))
    with TestClient(add_routes(app), headers={"x-user": "ann"}) as client:
        rid = client.post("/three").headers["x-request-id"]
        assert client.get("/v1/requests", params={"after": rid}).json()["data"] == []
        for user, after in (("ann", "unknown"), ("ann", "not an id"), ("bob", rid)):
            headers = {"x-user": user}
            listed = client.get("/v1/requests", params={"after": after}, headers=headers)
            cancelled = client.post("/v1/requests/cancel", json={"model": "three", "after": after}, headers=headers)
            for answer in (listed, cancelled):
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")

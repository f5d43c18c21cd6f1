"""The router of `lifecycle.fastapi`: calls that it refuses, and streams of requests that others have admitted."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

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

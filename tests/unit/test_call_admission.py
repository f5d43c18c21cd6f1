"""Test what a refused call is answered, and under which labels it is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from frontend.endpoints import BY_PATH
from frontend.routes.call_admission import admit
from frontend.transport.call_headers import CallHeaders
from frontend.transport.headers import decode_headers
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import load
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from tests.unit.world import World


class _FullTracker:
    """A frontend at its limit of readers, in a cluster without any model."""

    def __init__(self, world: World) -> None:
        self.settings = load({"max_readers": 1})
        self.store, self.metrics, self.readers = world.store, Metrics(), [object()]

    def is_served(self, *call: object) -> bool:
        return False

    async def model_state(self, model: str) -> str:
        return "unknown"


async def test_no_refusal_makes_a_label_of_a_model_that_nobody_serves(world: World) -> None:
    tracker: Any = _FullTracker(world)
    scope: dict[str, Any] = {
        "type": "http",
        "headers": [(b"idempotency-key", b"new")],
        "state": {"request_id": "r"},
        "app": SimpleNamespace(state=SimpleNamespace(tracker=tracker)),
    }
    headers = CallHeaders.parse(decode_headers(scope), tracker.settings)
    endpoint = BY_PATH["/v1/completions"]
    call = endpoint.parse(b'{"model": "nobody-serves-this", "prompt": "x"}')
    with pytest.raises(ApiError) as refused:
        await admit(Request(scope), endpoint, call, headers, cast(Tracker, tracker))
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    models = {sample.labels["model"] for family in tracker.metrics.rejections.collect() for sample in family.samples}
    assert models == {""}

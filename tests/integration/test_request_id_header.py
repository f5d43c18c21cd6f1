"""With `LIFECYCLE_REQUEST_ID_HEADER=off` a client's own id is ignored, as if it had sent none."""

from __future__ import annotations

import pytest

from frontend.transport.call_headers import CallHeaders
from tests.conftest import MakeSettings
from tests.edge import edge_server

BODY = {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(("value", "is_kept"), [("off", False), ("on", True)])
async def test_a_clients_id(make_settings: MakeSettings, value: str, is_kept: bool) -> None:
    settings = make_settings(request_id_header=value)
    async with edge_server(settings) as edge:
        answers = [
            await edge.http.post("/v1/chat/completions", json=BODY, headers={"X-Request-Id": "mine"}) for _ in range(2)
        ]
        malformed = await edge.http.post("/v1/chat/completions", json=BODY, headers={"X-Request-Id": "not an id"})
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert (ids == {"mine"}) == is_kept
    assert len(ids) == (1 if is_kept else 2)
    assert malformed.status_code == (400 if is_kept else 404)
    assert (CallHeaders.parse({"x-request-id": "mine"}, settings).request_id == "mine") == is_kept

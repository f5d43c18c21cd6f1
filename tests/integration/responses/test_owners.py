"""Responses belong to the owner of the API key that they came with: to others they do not exist."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import httpx2

from lifecycle.settings import Settings
from tests.cluster import running
from tests.integration.responses.client import MODEL, TEXT
from tests.keys import Keys


async def test_only_the_owner_and_operators_see_a_response(redis_url: str, tmp_path: Path) -> None:
    keys = Keys.make(tmp_path)
    settings = Settings(
        redis_url=redis_url,
        namespace=f"responses-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=5.0,
        sweep_secs=0.25,
    )
    async with running(settings, tmp_path, frontends=1, workers=0) as cluster:
        await cluster.worker(MODEL, "tests.response_engine:generate")
        guarded = await cluster.frontend(api_keys=str(keys.file))
        url = guarded.url + "/v1/responses"

        async def call(name: str, method: str, path: str = "", **body: Any) -> httpx2.Response:
            return await cluster.http.request(method, url + path, json=body or None, headers=keys.bearer(name))

        gate = str(tmp_path / "never")
        started: dict[str, Any] = {"model": MODEL, "input": TEXT, "background": True, "metadata": {"gate": gate}}
        rid = (await call("acme", "POST", **started)).json()["id"]
        assert (await cluster.http.get(f"{url}/{rid}")).status_code == 401
        ways = [
            ("GET", f"/{rid}"),
            ("GET", f"/{rid}?stream=true"),
            ("GET", f"/{rid}/input_items"),
            ("POST", f"/{rid}/cancel"),
            ("DELETE", f"/{rid}"),
        ]
        for method, path in ways:
            reply = await call("globex", method, path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "response_not_found"), (method, path)
        continued = await call("globex", "POST", model=MODEL, input=TEXT, previous_response_id=rid)
        assert (continued.status_code, continued.json()["error"]["code"]) == (400, "previous_response_not_found")
        assert (await call("acme", "GET", f"/{rid}")).json()["id"] == rid
        assert (await call("acme", "GET", f"/{rid}/input_items")).json()["data"][0]["content"][0]["text"] == TEXT
        assert (await call("ops", "GET", f"/{rid}")).json()["id"] == rid
        assert (await call("acme", "POST", f"/{rid}/cancel")).json()["status"] == "cancelled"
        assert (await call("ops", "DELETE", f"/{rid}")).json()["deleted"] is True

"""The headers, the endpoint and the owner of a call, on their way from the client to the engine and its upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.keys import Keys
from tests.sse import chat
from tests.upstream import DONE, Serve, chunk, playing

SENT = {
    "X-Session-Id": "s1",
    "x-vllm-lora": "gr\u00fcn",
    "X-On-Disconnect": "continue",
    "Cookie": "a=b",
    "X-Other": "o",
}
ARRIVES = {"x-session-id": "s1", "x-vllm-lora": "gr\u00fcn"}


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[tuple[Cluster, Keys]]:
    keys = Keys.make(tmp_path)
    settings = make_settings(forward_headers="Cookie, x-session-id, X-VLLM-*", api_keys=str(keys.file))
    async with running(settings, tmp_path, workers=0, headers=keys.bearer("ops")) as cluster:
        yield cluster, keys


async def ask(cluster: Cluster, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await cluster.http.post(
        cluster.frontends[0].url + path,
        json=body,
        headers=[(name.encode(), value) for name, value in encoded.items()],
    )
    return answer.status_code, answer.json()


async def test_an_engine_sees_the_named_headers_the_endpoint_and_the_owner(cluster: tuple[Cluster, Keys]) -> None:
    running, keys = cluster
    await running.worker("m", "tests.engines:introduced")
    _, whole = await ask(running, "/v1/chat/completions", chat("x", "m", stream=False), SENT | keys.bearer("acme"))
    found = json.loads(whole["choices"][0]["message"]["content"])
    assert found == {"headers": ARRIVES, "endpoint": "chat_completions", "owner": "acme"}

    record = await running.get(f"/v1/requests/{whole['id']}")
    assert "s1" not in json.dumps(record)

    _, whole = await ask(running, "/v1/completions", {"model": "m", "prompt": "x"}, keys.bearer("ops"))
    found = json.loads(whole["choices"][0]["text"])
    assert found == {"headers": {}, "endpoint": "completions", "owner": "ops"}

    log = running.frontends[0].log.read_text()
    assert "LIFECYCLE_FORWARD_HEADERS names cookie, which are never forwarded" in log


async def test_the_upstream_gets_the_named_headers(cluster: tuple[Cluster, Keys], serve: Serve) -> None:
    running, keys = cluster
    upstream, _ = await serve(playing(chunk("x", finish_reason="stop"), DONE))
    worker = await running.worker("m", "openai", openai_base_url=upstream.url, openai_api_key="secret")
    status, _ = await ask(running, "/v1/chat/completions", chat("x", "m", stream=False), SENT | keys.bearer("acme"))
    assert status == 200
    await worker.terminate()
    headers = next(found.headers for found in upstream.exchanges if found.path.endswith("/chat/completions"))
    assert headers["x-session-id"] == "s1"
    assert headers["x-vllm-lora"] == "gr\u00fcn"
    assert headers["authorization"] == "Bearer secret"
    assert headers.keys().isdisjoint({"cookie", "x-on-disconnect", "x-other"})


async def test_too_many_bytes_of_them_are_refused(cluster: tuple[Cluster, Keys]) -> None:
    running, keys = cluster
    await running.worker("m", "tests.engines:introduced")
    sent = {"X-Session-Id": "s" * 9000} | keys.bearer("acme")
    status, answer = await ask(running, "/v1/chat/completions", chat("x", "m"), sent)
    assert status == 431
    assert answer["error"]["code"] == "headers_too_large"
    assert "x-session-id" in answer["error"]["message"]
    assert "at most 8192" in answer["error"]["message"]

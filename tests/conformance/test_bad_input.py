"""Whatever is wrong with a call, it gets a clear error with the right code, starts nothing, and hurts nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.conformance.calls import MAX_BODY_BYTES, refusal, send

MESSAGES = [{"role": "user", "content": "hi"}]


def _chat(**fields: Any) -> str:
    return json.dumps({"model": "echo", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("", 400, None),
        ("{", 400, None),
        ("[]", 400, None),
        (b"\xff\xfe", 400, None),
        ("[" * 50_000, 400, None),
        ('{"model": NaN, "messages": []}', 400, None),
        (json.dumps({"messages": MESSAGES}), 400, "model"),
        (json.dumps({"model": 3, "messages": MESSAGES}), 400, "model"),
        (json.dumps({"model": "", "messages": MESSAGES}), 400, "model"),
        (json.dumps({"model": "echo"}), 400, "messages"),
        (json.dumps({"model": "echo", "messages": []}), 400, "messages"),
        (json.dumps({"model": "echo", "messages": [{"role": 5, "content": "x"}]}), 400, "messages[0].role"),
        (_chat(stream="yes"), 400, "stream"),
        (_chat(temperature="hot"), 400, "temperature"),
        (_chat(max_tokens=True), 400, "max_tokens"),
        (_chat(stream_options={"include_usage": True}), 400, "stream_options"),
        (_chat(n=2), 400, "n"),
        (_chat(logprobs=True), 400, "logprobs"),
        (_chat(tools=[{"type": "function", "function": {"name": "f"}}]), 400, "tools"),
        (json.dumps({"model": "nobody/serves", "messages": MESSAGES}), 404, "model"),
        (json.dumps({"model": "away", "messages": MESSAGES}), 503, None),
        ("x" * (MAX_BODY_BYTES + 1), 413, None),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | bytes) else str(value),
)
async def test_a_bad_body_is_refused(cluster: Cluster, body: Any, status: int, param: str | None) -> None:
    before = await cluster.metric("lifecycle_requests_started_total")
    error = refusal(await send(cluster, body), status)
    if param is not None:
        assert error["param"] == param
    assert await cluster.metric("lifecycle_requests_started_total") == before
    assert await cluster.inflight() == 0


async def test_a_refusal_that_may_pass_says_when_to_come_back(cluster: Cluster) -> None:
    answer = await send(cluster, {"model": "away", "messages": MESSAGES})
    assert int(answer.headers["retry-after"]) >= 1
    assert "x-should-retry" not in answer.headers
    answer = await send(cluster, {"model": "nobody", "messages": MESSAGES})
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_a_body_without_a_declared_length_is_limited_too(cluster: Cluster) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 4096

    answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", content=endless())
    refusal(answer, 413)


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä".encode().decode("latin-1"), "a/b", "a\tb"])
async def test_a_malformed_request_id_is_refused(cluster: Cluster, given: str) -> None:
    answer = await cluster.http.get(
        cluster.frontends[0].url + "/v1/models", headers=[(b"x-request-id", given.encode("latin-1"))]
    )
    refusal(answer, 400)
    assert answer.headers["x-request-id"] != given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-On-Disconnect", "maybe"),
        ("X-Disconnect-Grace-Secs", "-1"),
        ("X-Queue-Timeout-Secs", "soon"),
        ("X-Queue-Timeout-Secs", "0"),
        ("X-First-Token-Timeout-Secs", "nan"),
        ("X-Deadline-Secs", "inf"),
        ("X-Deadline-Secs", "1e99"),
    ],
)
async def test_a_malformed_header_is_refused(cluster: Cluster, name: str, value: str) -> None:
    answer = await send(cluster, {"model": "echo", "messages": MESSAGES}, None, **{name: value})
    assert refusal(answer, 400)["param"] == name


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/requests/x", 405),
        ("GET", "/v1/requests/never-seen", 404),
        ("GET", "/v1/requests/never-seen/stream", 404),
        ("POST", "/v1/requests/never-seen/cancel", 404),
        ("DELETE", "/v1/requests/never-seen", 404),
        ("GET", "/v1/requests/" + "x" * 4000, 404),
        ("GET", "/v1/requests/a%20b", 404),
        ("GET", "/v1/models/nobody", 404),
        ("GET", "/v1/requests?limit=0", 400),
        ("GET", "/v1/requests?limit=1001", 400),
        ("GET", "/v1/requests?limit=ten", 400),
        ("GET", "/v1/requests?limit=%D9%A1", 400),
        ("GET", "/v1/requests?status=sleeping", 400),
        ("GET", "/v1/requests?endpoint=Images", 400),
        ("GET", "/v1/requests?after=never-seen", 400),
    ],
)
async def test_paths_methods_and_queries(cluster: Cluster, method: str, path: str, status: int) -> None:
    for frontend in cluster.frontends:
        refusal(await cluster.http.request(method, frontend.url + path), status)


async def test_half_a_body_and_then_nothing_starts_nothing(cluster: Cluster) -> None:
    host, port = cluster.frontends[0].url.removeprefix("http://").split(":")
    before = await cluster.metric("lifecycle_requests_started_total")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await cluster.http.get(cluster.frontends[0].url + "/live")).status_code == 200
    assert await cluster.metric("lifecycle_requests_started_total") == before


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /live HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_garbage_on_the_wire_is_answered_and_survived(cluster: Cluster, garbage: bytes) -> None:
    host, port = cluster.frontends[0].url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(garbage)
    await writer.drain()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-request-id: req-" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert (await cluster.http.get(cluster.frontends[0].url + "/live")).status_code == 200


async def test_a_very_long_url_is_only_not_found(cluster: Cluster) -> None:
    refusal(await cluster.http.get(cluster.frontends[0].url + "/v1/" + "x" * 60_000), 404)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/nowhere"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods_are_refused(cluster: Cluster, method: str, path: str) -> None:
    answer = await cluster.http.request(method, cluster.frontends[0].url + path)
    status = 404 if path == "/nowhere" else 405
    assert answer.headers["x-request-id"]
    if method == "HEAD":  # has no body by definition
        assert (answer.status_code, answer.content) == (status, b"")
    else:
        refusal(answer, status)
    if status == 405:
        assert answer.headers["allow"]

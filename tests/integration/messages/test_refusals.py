"""Whatever goes wrong under /v1/messages is told in Anthropic's form, and raises the right exception of its SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.integration.messages.client import ENDLESS, call, sdk_for, streaming
from tests.keys import LIMIT, Keys

MAX_BODY_BYTES = 64 * 1024


@pytest.fixture
async def guarded(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[tuple[Cluster, Keys]]:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file), max_body_bytes=MAX_BODY_BYTES, headers_after_secs=5.0)
    async with running(settings, tmp_path, headers=keys.bearer("ops")) as cluster:
        await cluster.worker("single", concurrency=1)
        away = await cluster.worker("away")
        await away.terminate()
        yield cluster, keys


def told(answer: httpx2.Response, status: int, kind: str) -> str:
    """Return the message of an error in Anthropic's form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    body = answer.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == answer.headers["request-id"]
    return str(body["error"]["message"])


async def test_the_sdks_exceptions(guarded: tuple[Cluster, Keys]) -> None:
    running, keys = guarded
    url = running.frontends[0].url
    async with sdk_for(url, api_key=keys.of["acme"], max_retries=0) as sdk:
        assert (await sdk.messages.create(**call())).stop_reason == "end_turn"
        with pytest.raises(anthropic.NotFoundError, match="'nothing' does not exist"):
            await sdk.messages.create(**call(model="nothing"))
        with pytest.raises(anthropic.BadRequestError, match="'temperature' must be a number"):
            await sdk.messages.create(**call(), extra_body={"temperature": "warm"})
        with pytest.raises(anthropic.ContentTooLargeError):
            await sdk.messages.create(**call("x" * MAX_BODY_BYTES))
        with pytest.raises(anthropic.BadRequestError, match="does not serve the endpoint count_tokens"):
            await sdk.messages.count_tokens(model="echo", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(anthropic.BadRequestError, match="'tools'"):
            tool = {"name": "f", "input_schema": {"type": "object"}}
            await sdk.messages.create(**call(tools=[tool]))
        with pytest.raises(anthropic.InternalServerError) as raised:
            await sdk.messages.create(**call(model="away"))
        assert raised.value.status_code == 503
        await sdk.messages.create(**call(), extra_headers={"X-Request-Id": "mine"})
        with pytest.raises(anthropic.ConflictError, match="mine"):
            await sdk.messages.create(**call(), extra_headers={"X-Request-Id": "mine"})
    async with sdk_for(url, api_key="wrong") as sdk:
        with pytest.raises(anthropic.AuthenticationError, match="x-api-key"):
            await sdk.messages.create(**call())
    async with sdk_for(url, api_key=None, auth_token=keys.of["globex"]) as sdk:
        assert (await sdk.messages.create(**call())).role == "assistant"


async def test_a_callers_limit_and_a_time_limit(guarded: tuple[Cluster, Keys]) -> None:
    running, keys = guarded
    async with (
        sdk_for(running.frontends[0].url, api_key=keys.of["acme"], max_retries=0) as sdk,
        asyncio.TaskGroup() as group,
    ):
        opened = [await sdk.messages.create(**call(), stream=True, extra_body=ENDLESS) for _ in range(LIMIT)]
        with pytest.raises(anthropic.RateLimitError, match="limit of inflight requests"):
            await sdk.messages.create(**call())
        for stream in opened:
            group.create_task(stream.close())
    async with (
        streaming(running, call("x", "single", **ENDLESS)) as busy,
        sdk_for(running.frontends[0].url, api_key=keys.of["globex"], max_retries=0) as sdk,
    ):
        await busy.read_tokens(3)
        with pytest.raises(anthropic.InternalServerError) as raised:
            await sdk.messages.create(**call("x", "single"), extra_headers={"X-Queue-Timeout-Secs": "0.1"})
    body: Any = raised.value.body
    assert (raised.value.status_code, body["error"]["type"]) == (504, "timeout_error")


async def test_every_error_below_the_path_has_the_form(guarded: tuple[Cluster, Keys]) -> None:
    running, _ = guarded
    http, url = running.http, running.frontends[0].url + "/v1/messages"
    told(await http.post(url, content=b"{"), 400, "invalid_request_error")
    assert "max_tokens" in told(
        await http.post(url, json={"model": "echo", "messages": [{"role": "user", "content": "x"}]}),
        400,
        "invalid_request_error",
    )
    told(await http.post(url, json=call(), headers={"X-Request-Id": "a b"}), 400, "invalid_request_error")
    told(await http.post(url, json=call(), headers={"Authorization": "Bearer x"}), 401, "authentication_error")
    told(await http.get(url), 405, "invalid_request_error")
    told(await http.get(url + "/unknown"), 404, "not_found_error")
    told(await http.post(url + "/count_tokens", json={"model": "echo"}), 400, "invalid_request_error")
    told(await http.post(url, json=call(model="away")), 503, "overloaded_error")
    answer = await http.get(running.frontends[0].url + "/v1/nothing")
    assert list(answer.json()) == ["error"]
    assert "request-id" not in answer.headers

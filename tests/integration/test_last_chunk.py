"""The last chunk of a stream, with what the upstream sent beside the usage, through real frontends and workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.sse import chat, post, resume
from tests.upstream import DONE, Serve, playing


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(make_settings(sse_keepalive_secs=60), tmp_path, frontends=2, workers=0) as cluster:
        yield cluster


def event(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> str:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return f"data: {orjson.dumps({'choices': choices, 'system_fingerprint': 'f', **fields}).decode()}\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
REST = {"choices": [], "usage": USAGE, "system_fingerprint": "f", "timings": {"ms": 2}}
ANSWER = [
    event({"role": "assistant", "content": ""}),
    event({"content": "a"}),
    event({"content": "b"}),
    event({"reasoning": "hm"}, "length"),
    f"data: {orjson.dumps(REST).decode()}\n\n",
    DONE,
]


async def test_every_reader_gets_what_came_beside_the_usage(cluster: Cluster, serve: Serve) -> None:
    upstream, _ = await serve(playing(*ANSWER))
    worker = await cluster.worker("m", "openai", openai_base_url=upstream.url)
    first, other = cluster.frontends

    async with post(cluster.http, first.url, chat("x", "m"), X_Request_Id="plain") as stream:
        plain = await stream.read()
    assert [found.id for found in plain] == ["1-1", "1-2", "1-3", "1-5", None]
    last = plain[3].data
    assert (last["choices"][0]["finish_reason"], last["timings"], "usage" in last) == ("length", {"ms": 2}, False)
    assert {found.data["system_fingerprint"] for found in plain[:-1]} == {"f"}

    for after in ("", "1-1", "1-2", "1-3"):
        async with resume(cluster.http, other.url, "plain", after) as stream:
            behind = [(found.id, found.data) for found in await stream.read()]
        seen = [found.id for found in plain].index(after) + 1 if after else 0
        assert behind == [(found.id, found.data) for found in plain[seen:]], after

    options = {"stream_options": {"include_usage": True}}
    async with post(cluster.http, first.url, chat("x", "m", **options)) as stream:
        *_, finish, usage, done = [found.data for found in await stream.read()]
    assert (finish["choices"][0]["finish_reason"], "timings" in finish, done) == ("length", False, "[DONE]")
    assert {name: usage[name] for name in REST} == REST

    answer = await cluster.http.post(first.url + "/v1/chat/completions", json=chat("x", "m", stream=False))
    assert {name: answer.json()[name] for name in ("usage", "timings")} == {"usage": USAGE, "timings": {"ms": 2}}
    await worker.terminate()


async def test_an_engine_that_does_not_end_does_not_hold_back_its_last_chunk(cluster: Cluster) -> None:
    await cluster.worker("m", "tests.engines:lingering")
    async with post(cluster.http, cluster.frontends[0].url, chat("x", "m")) as stream:
        async with asyncio.timeout(10):
            async for found in stream:
                assert (found.id, found.data["choices"][0]["finish_reason"]) == ("1-1", "length")
                break

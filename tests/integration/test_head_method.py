"""HEAD answers where GET does, with the same head and no body, and it opens no stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frontend.auth.policy import RULES
from tests.conftest import MakeSettings
from tests.edge import EdgeServer, edge_server
from tests.keys import Keys

STREAMS = ("/v1/overview",)
LIVE = ("/metrics", "/health", "/v1/inflight", "/v1/replicas", "/nowhere")  # they have times, or name the method
VARYING = ("date", "x-request-id", "retry-after", "transfer-encoding")


@pytest.fixture(params=["without keys", "with keys"])
async def edge(
    request: pytest.FixtureRequest, make_settings: MakeSettings, tmp_path: Path
) -> AsyncIterator[EdgeServer]:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file) if request.param == "with keys" else "")
    async with edge_server(settings) as started:
        started.http.headers.update(keys.bearer("ops"))
        yield started


async def test_head_answers_as_get_does(edge: EdgeServer) -> None:
    paths = [re.sub(r"\{[^}]+\}", "unknown", rule.path) for rule in RULES if "GET" in rule.methods.split()]
    assert "/live" in paths
    for path in (*paths, "/nowhere", "/v1/requests?limit=x"):
        async with edge.http.stream("GET", path) as read:
            if path not in STREAMS:
                await read.aread()
        head = await edge.http.head(path)
        assert (head.status_code, head.content) == (read.status_code, b""), path
        own, others = ({n: v for n, v in a.headers.items() if n not in VARYING} for a in (head, read))
        if path in LIVE:
            own["content-length"] = others["content-length"]
        assert own == others, path


async def test_head_is_refused_where_there_is_no_get(edge: EdgeServer) -> None:
    answer = await edge.http.head("/v1/chat/completions")
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["allow"] == "POST"

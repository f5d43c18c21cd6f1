"""Every refused call is counted, and logged once a second at most for each reason, without its key."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from tests.connection import connected
from tests.edge import EdgeServer, edge_server
from tests.keys import Keys

LOGGER = "frontend.edge.refusals"
CALL = "/v1/chat/completions"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.make(tmp_path)


@pytest.fixture
async def edge(make_settings: MakeSettings, keys: Keys) -> AsyncIterator[EdgeServer]:
    async with edge_server(make_settings(api_keys=str(keys.file))) as started:
        yield started


def counted(edge: EdgeServer) -> dict[tuple[str, str], int]:
    """Return the counts by status and reason."""
    return {
        (sample.labels["status"], sample.labels["reason"]): int(sample.value)
        for metric in edge.tracker.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "lifecycle_refused_calls_total"
    }


async def test_each_refusal_is_counted(edge: EdgeServer, keys: Keys) -> None:
    acme = keys.bearer("acme")
    await edge.http.get("/v1/models")
    await edge.http.get("/v1/inflight", headers=acme)
    await edge.http.get("/v1/requests/unknown", headers=acme)
    await edge.http.get("/nowhere")
    await edge.http.get(CALL, headers=acme)
    await edge.http.post(CALL, content="{", headers=acme)
    await edge.http.post(CALL, json={"model": "nobody", "messages": [{"role": "user", "content": ""}]}, headers=acme)
    await edge.http.get("/live", headers={"X-Request-Id": "not an id"})
    async with connected(edge.port) as connection:
        await connection.send(b"GET\r\n\r\n")
        await connection.read_to_end()
    assert (await edge.http.get("/live")).status_code == 200
    assert counted(edge) == {
        ("401", "invalid_api_key"): 1,
        ("403", "insufficient_permissions"): 1,
        ("404", "request_not_found"): 1,
        ("404", "unknown_path"): 1,
        ("404", "model_not_found"): 1,
        ("405", "wrong_method"): 1,
        ("400", "validation"): 2,
        ("400", "malformed_http"): 1,
    }


async def test_sites_and_hosts_are_counted_too(make_settings: MakeSettings) -> None:
    async with edge_server(make_settings()) as edge:
        await edge.http.get("/live", headers={"Host": "evil.example"})
        await edge.http.post(CALL, headers={"Origin": "https://evil.example"})
        assert counted(edge) == {("421", "host_not_allowed"): 1, ("403", "cross_origin"): 1}


async def test_the_log_has_one_line_a_second_for_each_reason(
    edge: EdgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    for _ in range(20):
        await edge.http.get("/v1/models", headers={"Authorization": "Bearer lc-secret"})
    await edge.http.get("/nowhere/%0A" + "x" * 1000)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert 2 <= len(lines) < 20
    assert lines[0] == "refused GET '/v1/models' with 401: invalid_api_key"
    assert all("\n" not in line and len(line) < 250 and "secret" not in line for line in lines)

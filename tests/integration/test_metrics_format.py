"""`GET /metrics` is in the text format that every scraper reads."""

from __future__ import annotations

import pytest

from tests.conftest import MakeSettings
from tests.edge import edge_server


@pytest.mark.parametrize("accept", ["*/*", "text/plain;version=0.0.4;q=0.5"])
async def test_the_type_of_the_metrics_is_the_version_that_scrapers_ask_for(
    make_settings: MakeSettings, accept: str
) -> None:
    async with edge_server(make_settings()) as edge:
        answer = await edge.http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\n# TYPE lifecycle_requests_total counter\n" in answer.text

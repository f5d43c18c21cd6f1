"""Every response carries the headers that keep a browser from misusing it."""

from __future__ import annotations

import pytest

from tests.cluster import Cluster
from tests.sse import chat, post


@pytest.mark.parametrize(
    ("path", "policy", "cache"),
    [
        ("/", "default-src 'self'", "no-cache"),
        ("/v1/models", "default-src 'none'", "no-store"),
        ("/unknown", "default-src 'none'", "no-store"),
        ("/metrics", "default-src 'none'", "no-store"),
    ],
)
async def test_every_response_is_safe_in_a_browser(cluster: Cluster, path: str, policy: str, cache: str) -> None:
    headers = (await cluster.http.get(cluster.frontends[0].url + path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith(policy)
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == cache
    assert len(headers.get_list("cache-control")) == 1


async def test_a_stream_is_safe_in_a_browser_too(cluster: Cluster) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("x")) as stream:
        await stream.read()
        assert stream.response.headers["cache-control"] == "no-cache, no-transform"
        assert stream.response.headers["x-content-type-options"] == "nosniff"

"""One cluster for the folder: two frontends and an echo engine. Tests add the workers of their upstreams."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import anthropic
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.integration.messages.client import sdk_for
from tests.shared_cluster import borrowed, shared_cluster


@pytest.fixture(scope="package")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"messages-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=2.0,
        sweep_secs=0.25,
        stop_grace_secs=0.3,
        headers_after_secs=5.0,
        echo_tokens_per_sec=200.0,
    )
    with shared_cluster(running(settings, tmp_path_factory.mktemp("messages"), frontends=2)) as cluster:
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk_for(cluster.frontends[0].url) as sdk:
        yield sdk

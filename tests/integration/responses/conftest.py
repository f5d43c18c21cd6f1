"""One cluster for the folder: two frontends, and an engine that serves the Responses API itself."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.integration.responses.client import MODEL, sdk_of
from tests.shared_cluster import borrowed, shared_cluster


@pytest.fixture(scope="package")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"responses-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=5.0,
        sweep_secs=0.25,
        stop_grace_secs=0.3,
        headers_after_secs=5.0,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("responses"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker(MODEL, "tests.response_engine:generate")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


@pytest.fixture
async def here(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk_of(cluster.frontends[0]) as sdk:
        yield sdk


@pytest.fixture
async def there(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    """The other frontend."""
    async with sdk_of(cluster.frontends[1]) as sdk:
        yield sdk


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The engine stops half-way until this file exists."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()  # whatever the test did, the engine goes on

"""One cluster for the whole folder: two frontends, and a model for each way a request can go.

Everything runs twice: on the test run's one server, and on a Redis Cluster of the bundled one.

| model | engine | for |
|---|---|---|
| `echo` | echo, two workers, fast | what goes well, and with `calls.endless()` what never ends by itself |
| `raiser` | `three_then_raise` | what fails |
| `silent` | `silent` | what stops talking |
| `single` | `marked`, concurrency 1 | what has to queue; the engine keeps a journal |
| `brief` | echo | another model |
| `away` | its worker has left | what is known and not served |
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lifecycle.local.redis_binary import BUNDLED, bundled_path, find_server
from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.cluster_setup import ClusterSetup
from tests.conformance.calls import MAX_BODY_BYTES
from tests.distribution import DEPLOYMENTS
from tests.processes import kept
from tests.shared_cluster import borrowed, shared_cluster

QUEUE_LIMIT = 3


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    with ClusterSetup(find_server(BUNDLED) if bundled_path() else None) as setup, kept(*setup.nodes):
        yield setup.url


@pytest.fixture(scope="package", params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest) -> str:
    """The URL."""
    url: str = request.getfixturevalue("redis_url" if request.param == DEPLOYMENTS[0] else "cluster_url")
    return url


@pytest.fixture(scope="package")
def shared(deployment: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The processes. Tests take `cluster`, which lives in their own event loop."""
    settings = Settings(
        redis_url=deployment,
        namespace=f"conformance-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        retention_secs=300.0,
        sse_keepalive_secs=0.25,
        stop_grace_secs=0.3,
        echo_tokens_per_sec=200.0,
        queue_limit=QUEUE_LIMIT,
        max_body_bytes=MAX_BODY_BYTES,
        openai_base_url="",
        backend_stream_timeout_secs=0,
    )
    with shared_cluster(_every_model(settings, tmp_path_factory.mktemp("conformance"))) as cluster:
        yield cluster


@asynccontextmanager
async def _every_model(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=2) as cluster:
        *_, away = await asyncio.gather(
            cluster.worker("raiser", "tests.engines:three_then_raise"),
            cluster.worker("silent", "tests.engines:silent"),
            cluster.worker("single", "tests.engines:marked", concurrency=1),
            cluster.worker("brief"),
            cluster.worker("away"),
        )
        await away.terminate()
        cluster.workers.remove(away)
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    """The shared cluster, with a client of the test's own. Whatever the test did, nothing stays inflight."""
    async with borrowed(shared) as own:
        yield own


@pytest.fixture
def new_id(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Make request ids that contain the name of the test."""
    return lambda: f"{request.node.originalname[:80]}-{secrets.token_hex(4)}"


@pytest.fixture
def rid(new_id: Callable[[], str]) -> str:
    return new_id()

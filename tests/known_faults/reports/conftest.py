"""Two frontends (one asks for keys), an `echo` worker and one worker of a scripted upstream for the whole folder.

| model | engine | for |
|---|---|---|
| `echo` | echo, 20 tokens a second | what needs no engine of its own |
| `upstream` | openai, in front of the fixture `upstream` | one script for each text: `upstream.play(text, script)` |
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.conftest import inspect_and_clear
from tests.keys import Keys
from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import Upstream
from tests.waiting import wait_until

_TIMEOUT_SECS = 20.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes longer than a few seconds, because it has to wait for a limit")


@pytest.fixture(scope="package")
def upstream() -> Iterator[Upstream]:
    """The scripted upstream of the model `upstream`; texts are to be unique in the folder."""
    with Upstream() as server:
        yield server


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of the frontend that asks for them."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="package")
def shared(
    redis_url: str, upstream: Upstream, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The processes. Tests take `site`, which lives in their own event loop."""
    quick: dict[str, Any] = {"heartbeat_secs": 0.25, "lease_secs": 4.0, "sweep_secs": 0.25, "drain_timeout_secs": 2.0}
    namespace = f"reports-{secrets.token_hex(4)}"
    settings = Settings(**{"redis_url": redis_url, "namespace": namespace, "echo_tokens_per_sec": 20.0, **quick})
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        started = _every_replica(settings, upstream, keys, tmp_path_factory.mktemp("reports"))
        cluster = runner.run(stack.enter_async_context(started))
        try:
            yield cluster
        finally:
            runner.run(stack.aclose())
        found = runner.run(inspect_and_clear(redis_url, settings.namespace, False))
    assert not found, "left in Redis:\n  " + "\n  ".join(found)


@asynccontextmanager
async def _every_replica(settings: Settings, upstream: Upstream, keys: Keys, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory) as cluster:
        await asyncio.gather(
            cluster.frontend(api_keys=str(keys.file)),
            cluster.worker("upstream", "openai", openai_base_url=upstream.url),
        )
        yield cluster


@pytest.fixture
async def site(shared: Cluster, keys: Keys, tmp_path: Path) -> AsyncIterator[Site]:
    """The shared replicas with a client of the test's own. What the test starts, and its requests, end with it."""
    async with httpx2.AsyncClient(timeout=_TIMEOUT_SECS, trust_env=False) as http:
        own = Site(shared.settings, tmp_path, http, [*shared.frontends], keys=keys)
        try:
            yield own

            async def idle() -> bool:
                return await own.inflight() == 0

            await wait_until(idle, what="a site without requests")
        finally:
            del own.frontends[: len(shared.frontends)]  # these are everybody's
            await own.close()


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model name that no other test uses."""
    name = str(getattr(request.node, "originalname", request.node.name))
    return f"{name[:48]}-{secrets.token_hex(4)}"

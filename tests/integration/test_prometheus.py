"""deploy/prometheus in a real Prometheus scraping real frontends; each panel of the dashboard has values to show."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import ROOT, Cluster, running
from tests.servers import ask
from tests.sse import chat, post
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "lifecycle.json").read_text())
QUERIES = {
    f"{panel['title']}, {target['refId']}": target["expr"].replace("$__rate_interval", "10s").replace("$model", ".*")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


class Prometheus:
    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def get(self, path: str, **parameters: str) -> Any:
        answer = await self._http.get(f"{self._url}/api/v1/{path}", params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]

    async def values(self, query: str) -> list[float]:
        return [float(sample["value"][1]) for sample in (await self.get("query", query=query))["result"]]


@asynccontextmanager
async def scraping(cluster: Cluster) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the deployed configuration, the cluster's addresses and shorter intervals."""
    directory, port = cluster.directory / "prometheus", free_port()
    shutil.copytree(ROOT / "deploy" / "prometheus", directory)
    text = (directory / "prometheus.yml").read_text().replace("_interval: 5s", "_interval: 200ms")
    for number, frontend in enumerate(cluster.frontends, 1):
        text = text.replace(f"frontend-{number}:8000", frontend.url.removeprefix("http://"))
    (directory / "prometheus.yml").write_text(text)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    prometheus = Prometheus(cluster.http, f"http://127.0.0.1:{port}")

    async def scrapes() -> bool:
        assert process.returncode is None, (directory / "log").read_text()
        try:
            return await prometheus.values('up{job="lifecycle"}') == [1.0, 1.0]
        except httpx2.HTTPError:
            return False

    try:
        await wait_until(scrapes, timeout=20)
        yield prometheus
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


async def test_an_alert_fires_when_redis_forbids_one_command(settings: Settings, tmp_path: Path) -> None:
    with EmbeddedRedis(port=0) as server:
        settings = settings.model_copy(update={"redis_url": server.url})
        async with running(settings, tmp_path, frontends=2, workers=0) as cluster, scraping(cluster) as prometheus:

            async def alerts() -> list[float]:
                return await prometheus.values('ALERTS{alertname="LifecycleRedisAway"}')

            async def are_told(number: int) -> bool:
                return await alerts() == [1.0] * number

            await wait_until(lambda: are_told(0), timeout=20, what="two frontends that have Redis")
            ask(server, "ACL", "SETUSER", "default", "-xadd")
            await wait_until(lambda: are_told(2), timeout=20, what="an alert for each frontend")
            ask(server, "ACL", "SETUSER", "default", "+xadd")
            await wait_until(lambda: are_told(0), timeout=20, what="no alert any more")


async def test_the_rules_are_taken_and_every_panel_has_something_to_show(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, frontends=2, workers=1) as cluster, scraping(cluster) as prometheus:
        url = cluster.frontends[0].url

        async def unanswered() -> list[str]:
            """After one more of each: a success, an error, a cancel, a disconnect, a refusal."""
            await cluster.http.post(f"{url}/v1/chat/completions", json=chat("a b c", stream=False))
            await cluster.http.post(f"{url}/v1/chat/completions", json=chat("x", "nobody"))
            headers = {"X-Deadline-Secs": "0.05"}
            await cluster.http.post(f"{url}/v1/chat/completions", json=chat("a b c", stream=False), headers=headers)
            async with post(cluster.http, url, chat("cut " * 1000)) as stream:
                await stream.read_tokens(1)
                await cluster.http.post(f"{url}/v1/requests/{stream.response.headers['x-request-id']}/cancel")
            async with post(cluster.http, url, chat("left " * 1000)) as stream:
                await stream.read_tokens(1)
            found = {name: await prometheus.values(query) for name, query in QUERIES.items()}
            return [name for name, values in found.items() if not values or not all(map(math.isfinite, values))]

        async def answered() -> bool:
            return not await unanswered()

        await wait_until(answered, timeout=30, what="a value for every panel")
        rules = (await prometheus.get("rules"))["groups"][0]["rules"]
        assert rules
        assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}

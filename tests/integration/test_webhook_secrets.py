"""The secrets in a webhook's URL reach no log, error, record or finding, whatever goes wrong with its delivery."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from lifecycle.cli import main
from lifecycle.local.redis_process import free_port
from tests.cluster import running
from tests.conftest import MakeSettings
from tests.integration.test_webhooks import ON
from tests.receiver import receiving
from tests.waiting import wait_until

PATH, QUERY, PASSWORD = "secret-in-the-path", "secret-in-the-query", "secret-of-the-user"


async def test_a_failing_delivery_shows_none(
    make_settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(**ON, log_level="debug", webhook_attempts=2)
    shown: list[str] = []
    async with receiving() as receiver, running(settings, tmp_path) as cluster:
        receiver.statuses = [500] * 100
        origin = "/".join(receiver.url.split("/")[:3])
        origins = {
            "answers 500": origin,
            "nobody listens": f"http://127.0.0.1:{free_port()}",
            "speaks no TLS": origin.replace("http:", "https:"),
            "is refused": "http://elsewhere.invalid",
            "has a password": f"http://user:{PASSWORD}@127.0.0.1:{free_port()}",
        }

        async def call(number: int, origin: str) -> httpx2.Response:
            return await cluster.http.post(
                cluster.frontends[0].url + "/v1/chat/completions",
                json={"model": "echo", "messages": [{"role": "user", "content": "hello"}]},
                headers={"X-Request-Id": f"r{number}", "X-Webhook-Url": f"{origin}/{PATH}?token={QUERY}"},
            )

        answers = [await call(number, origin) for number, origin in enumerate(origins.values())]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert answers[3].status_code == 400
        log = cluster.frontends[0].log

        def all_failed() -> bool:
            text = log.read_text()
            return all(f"of r{number} to" in text for number in range(3))

        await wait_until(all_failed, timeout=20, what="deliveries that failed")
        where = ["--redis-url", settings.redis_url, "--namespace", settings.namespace]
        for command in (["doctor"], ["doctor", "--json"], ["ps", "--all", "--json"], ["why", "r0"]):
            await asyncio.to_thread(main.run, [*command, *where])
        for path in ("/v1/requests", "/v1/requests/r0/timeline", "/metrics"):
            shown.append((await cluster.http.get(cluster.frontends[0].url + path)).text)

        async def given_up() -> bool:
            return log.read_text().count("is given up") >= 3

        await wait_until(given_up, timeout=20, what="deliveries that were given up")
        shown += [answer.text for answer in answers]
        shown += [replica.log.read_text() for replica in (*cluster.frontends, *cluster.workers)]
    shown += capsys.readouterr()
    for secret in (PATH, QUERY, PASSWORD):
        assert not [line for text in shown for line in text.splitlines() if secret in line]

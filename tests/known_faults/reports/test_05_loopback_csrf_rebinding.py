"""Without keys, on loopback, any web page that the user visits can post to this server, and read it by DNS rebinding.

Today both are served. Expected: a POST of another site's page is 403, and a `Host` that is no name of this machine
is 421, so that neither requests nor answers can be read.
The same as edge/c_anon_csrf.
Source: open-mercato/cezar#426, milady-ai/milady#564, NousResearch/hermes-agent#21939 (Ollama's CVE-2024-28224).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.known_faults.reports.kit import Site, chat
from tests.waiting import wait_until

PAGE = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}


def rebound(site: Site) -> dict[str, str]:
    """Return what a page sends whose name has been made to mean this machine."""
    name = f"evil.example:{site.port}"
    return {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def running_request(site: Site) -> AsyncIterator[str]:
    """Have a request running that lasts longer than the test. Yields its id."""
    rid = f"victim-{secrets.token_hex(4)}"
    call = asyncio.create_task(site.ask("echo", "word " * 400, headers={"X-Request-Id": rid}))
    try:

        async def runs() -> bool:
            answer = await site.http.get(f"{site.url}/v1/requests/{rid}")
            return answer.status_code == 200 and answer.json()["status"] == "running"

        await wait_until(runs, what="a running request")
        yield rid
    finally:
        await site.http.post(f"{site.url}/v1/requests/{rid}/cancel?wait_ms=5000")
        await call


@pytest.mark.xfail(strict=True, reason="05: a page of another site can cancel everything that runs")
async def test_another_sites_page_cannot_cancel(site: Site) -> None:
    async with running_request(site) as rid:
        url = site.url + "/v1/requests/cancel"
        answer = await site.http.post(url, content='{"status":"inflight"}', headers=PAGE)
        record = await site.record(rid)
        assert (answer.status_code, record["cancel_requested_at"]) == (403, None)


@pytest.mark.xfail(strict=True, reason="05: a page of another site can run completions")
async def test_another_sites_page_cannot_run_completions(site: Site) -> None:
    assert (await site.ask("echo", "hi", headers=PAGE)).status_code == 403


@pytest.mark.xfail(strict=True, reason="05: a call for a foreign host, as after DNS rebinding, lists the requests")
async def test_a_foreign_host_lists_nothing(site: Site) -> None:
    answer = await site.http.get(site.url + "/v1/requests", headers=rebound(site))
    assert answer.status_code == 421
    assert "data" not in answer.json()


@pytest.mark.xfail(strict=True, reason="05: a call for a foreign host, as after DNS rebinding, reads the answers")
async def test_a_foreign_host_reads_no_answer(site: Site) -> None:
    rid = f"secret-{secrets.token_hex(4)}"
    assert (await site.ask("echo", "secret", headers={"X-Request-Id": rid})).status_code == 200
    answer = await site.http.get(f"{site.url}/v1/requests/{rid}/stream", headers=rebound(site))
    assert "secret" not in answer.text
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8:1", "[::1]:8000"])
async def test_the_names_of_this_machine_are_served(site: Site, host: str) -> None:
    url = site.url + "/v1/chat/completions"
    assert (await site.http.post(url, json=chat("echo", "hi"), headers={"Host": host})).status_code == 200

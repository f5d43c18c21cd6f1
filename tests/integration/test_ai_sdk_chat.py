"""The example of the AI SDK's chat in a real browser: reloaded, stopped, and with a frontend that dies."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lifecycle.settings import Settings
from tests.browser import CHROMIUM, browsing, chromium
from tests.cluster import ROOT, Cluster, running
from tests.sse import resume, text_of

if TYPE_CHECKING:
    from playwright.async_api import Page

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=15_000)  # a bound for a busy machine, not a wait

EXAMPLE = ROOT / "examples" / "ai_sdk_chat"
COUNT = 400
FIRST_HALF = "".join(f"{number} " for number in range(COUNT // 2))
WHOLE = "".join(f"{number} " for number in range(COUNT))

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH"),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not on PATH"),
    pytest.mark.skipif(
        not (EXAMPLE / "node_modules" / "@ai-sdk" / "react").exists(),
        reason="the AI SDK is not installed: cd examples/ai_sdk_chat && npm install",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as endpoint:
        yield endpoint


@asynccontextmanager
async def served(cluster: Cluster) -> AsyncIterator[str]:
    """Serve the example in front of the cluster's two frontends; yields the page's URL."""
    server = await asyncio.create_subprocess_exec(
        "node",
        str(EXAMPLE / "serve.mjs"),
        *(frontend.url for frontend in cluster.frontends),
        env=os.environ | {"PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(30):
            url = (await server.stdout.readline()).decode().strip()
        yield url + "?model=parts"
    finally:
        server.kill()
        await server.wait()


@asynccontextmanager
async def asked(browser: str, settings: Settings, directory: Path) -> AsyncIterator[tuple[Cluster, Page, list[str]]]:
    """Ask in the page, and wait for the first half of the answer. Yields the calls that the page has made, too."""
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker("parts", "tests.engines:in_two_parts")
        async with served(cluster) as url, browsing(browser, url, may_complain=True) as page:
            calls: list[str] = []
            page.on("request", lambda request: calls.append(f"{request.method} {request.url.split('/', 3)[3]}"))
            await page.fill("input", f"{COUNT} {directory / 'gate'}")
            await page.get_by_role("button", name="Ask").click()
            await expect(page.locator(".assistant")).to_have_text(FIRST_HALF.strip())
            try:
                yield cluster, page, calls
            finally:
                (directory / "gate").touch()


async def only_record(cluster: Cluster) -> dict[str, object]:
    (record,) = (await cluster.get("/v1/requests"))["data"]
    found: dict[str, object] = record
    return found


async def stored_text(cluster: Cluster) -> str:
    """Return the text of the only request, as the first living frontend has it."""
    rid = str((await only_record(cluster))["id"])
    async with resume(cluster.http, cluster.frontends[0].url, rid) as stream:
        return text_of(await stream.read())


async def test_a_reloaded_page_reads_on_at_the_other_frontend(browser: str, settings: Settings, tmp_path: Path) -> None:
    async with asked(browser, settings, tmp_path) as (cluster, page, calls):
        rid = (await only_record(cluster))["id"]
        assert calls == ["POST a/v1/chat/completions"]
        await page.reload()
        await expect(page.locator(".assistant")).to_have_text(FIRST_HALF.strip())
        await expect(page.locator("main")).to_have_attribute("data-status", "streaming")
        assert (await only_record(cluster))["status"] == "running"
        (tmp_path / "gate").touch()
        await expect(page.locator("main")).to_have_attribute("data-status", "ready")
        assert await page.locator(".assistant").text_content() == WHOLE == await stored_text(cluster)
        assert [call for call in calls if "/v1/" in call][1:] == [f"GET b/v1/requests/{rid}/stream"]

        await page.reload()  # what has ended is read once more
        await expect(page.locator(".assistant")).to_have_text(WHOLE.strip())
        await page.fill("input", f"2 {tmp_path / 'gate'}")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator(".assistant")).to_have_text([WHOLE.strip(), "0 1"])
        await expect(page.locator(".user")).to_have_count(2)


async def test_a_reloaded_page_stops_the_answer_at_the_other_frontend(
    browser: str, settings: Settings, tmp_path: Path
) -> None:
    async with asked(browser, settings, tmp_path) as (cluster, page, calls):
        await page.reload()
        await expect(page.locator(".assistant")).to_have_text(FIRST_HALF.strip())
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("main")).to_have_attribute("data-status", "ready")
        record = await only_record(cluster)
        assert calls[-1] == f"POST b/v1/requests/{record['id']}/cancel"
        assert (record["status"], record["cancel_mode"], record["finish_reason"]) == ("completed", "stop", "stop")
        assert await page.locator(".assistant").text_content() == FIRST_HALF == await stored_text(cluster)
        await expect(page.locator(".error")).to_have_count(0)


async def test_a_page_goes_on_when_its_frontend_dies(browser: str, settings: Settings, tmp_path: Path) -> None:
    async with asked(browser, settings, tmp_path) as (cluster, page, calls):
        rid = (await only_record(cluster))["id"]
        await cluster.frontends.pop(0).kill()
        (tmp_path / "gate").touch()
        await expect(page.locator("main")).to_have_attribute("data-status", "ready")
        assert await page.locator(".assistant").text_content() == WHOLE == await stored_text(cluster)
        assert calls[-1] == f"GET b/v1/requests/{rid}/stream"
        await expect(page.locator(".error")).to_have_count(0)

"""The dashboard in a real browser, on a real cluster. Skipped where there is no Playwright or no Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.embedded import EmbeddedRedis
from lifecycle.settings import Settings
from tests.cluster import running
from tests.conftest import MakeSettings
from tests.sse import chat, post

if TYPE_CHECKING:
    from playwright.async_api import Page
else:
    pytest.importorskip("playwright.async_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or ""
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = "<img src=x onerror=document.title='owned'>"

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH")


@asynccontextmanager
async def browsing(url: str, *, may_complain: bool = False, **context: Any) -> AsyncIterator[Page]:
    """The page at `url`; at the end, nothing has been complained about on its console."""
    from playwright.async_api import async_playwright

    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page(**context)
            page.set_default_timeout(10_000)
            page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.goto(url)
            yield page
        finally:
            await browser.close()
    assert may_complain or complaints == []


async def test_a_running_request_is_shown_watched_and_cancelled(settings: Settings, tmp_path: Path) -> None:
    from playwright.async_api import expect

    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        a, b = cluster.frontends
        await cluster.worker("paced", "tests.engines:paced")
        async with (
            browsing(b.url) as page,
            post(cluster.http, a.url, chat("100000 0.02", "paced"), X_Request_Id="r1") as stream,
        ):
            row = page.locator("#inflight tbody tr", has_text="r1")
            await expect(row).to_contain_text("running")
            await expect(row).to_contain_text("paced")
            await expect(page.locator("#total")).to_have_text("1")
            await expect(page.locator("#replicas tbody tr")).to_have_count(3)

            await row.get_by_role("button", name="Watch r1").click()
            await expect(page.locator("#watch-text")).to_contain_text("0 1 2 3 4")
            await expect(page.locator("#watch-status")).to_have_text("Live.")

            button = row.get_by_role("button", name="Cancel r1")
            await button.click()
            await page.get_by_role("button", name="Keep it").click()
            await expect(page.locator("#notices li")).to_have_count(0)
            assert (await cluster.record("r1"))["cancel_requested_at"] is None
            await button.press("Enter")
            await expect(page.locator("#cancel-id")).to_have_text("r1")
            await page.get_by_role("button", name="Cancel request").press("Enter")
            await expect(page.locator("#notices li")).to_have_text(
                re.compile(r"r1: cancel requested → confirmed after \d+ ms")
            )
            await stream.read()
            await expect(page.locator("#inflight-note")).to_have_text("Nothing is inflight.")
            await expect(page.locator("#watch-status")).to_contain_text("cancelled")
            await page.keyboard.press("Escape")
            await expect(page.locator("#watch")).to_be_hidden()
            ended = page.locator("#finished tbody tr", has_text="r1")
            await expect(ended.locator("td[data-label=status]")).to_have_text("cancelled")
            await expect(ended.locator("td[data-label=error]")).to_have_text("cancelled")
        record = await cluster.record("r1")
        assert (record["status"], record["cancel_reason"]) == ("cancelled", "Cancelled from the dashboard")


async def test_the_filter_narrows_and_rows_stay_themselves(settings: Settings, tmp_path: Path) -> None:
    from playwright.async_api import expect

    async with running(settings, tmp_path, workers=0) as cluster:
        url = cluster.frontends[0].url
        await cluster.worker("paced", "tests.engines:paced")
        await cluster.worker(HOSTILE, "tests.engines:paced")
        async with (
            browsing(url) as page,
            post(cluster.http, url, chat("100000 0.05", "paced"), X_Request_Id="alpha"),
            post(cluster.http, url, chat("100000 0.05", HOSTILE), X_Request_Id="beta"),
        ):
            rows = page.locator("#inflight tbody tr")
            await expect(rows).to_have_count(2)
            await expect(rows.first).to_contain_text(HOSTILE)
            await page.get_by_label("Filter").fill("ALPHA")
            await expect(rows).to_have_count(1)
            await expect(rows.first).to_contain_text("alpha")
            await expect(page.locator("#inflight-note")).to_have_text("1 of 2 match.")
            button = rows.first.get_by_role("button", name="Watch alpha")
            await button.focus()
            before = await page.locator("#inflight td[data-label=age]").first.text_content()
            await expect(page.locator("#inflight td[data-label=age]").first).not_to_have_text(before or "")
            await expect(button).to_be_focused()
            await page.get_by_label("Filter").fill("nothing like it")
            await expect(rows).to_have_count(0)
            assert await page.title() == "2 inflight – lifecycle"
            assert await page.locator("img").count() == 0


async def test_it_says_when_redis_is_away_and_when_it_is_back(make_settings: MakeSettings, tmp_path: Path) -> None:
    from playwright.async_api import expect

    with EmbeddedRedis() as redis:
        settings = make_settings(redis_url=redis.url, redis_timeout_secs=0.5, lease_secs=10.0)
        async with (
            running(settings, tmp_path) as cluster,
            browsing(cluster.frontends[0].url, may_complain=True) as page,  # the browser notes each 503
        ):
            await expect(page.locator("#replicas tbody tr")).to_have_count(2)
            await expect(page.locator("#health")).to_be_hidden()
            redis.freeze()
            await expect(page.locator("#health")).to_contain_text("Redis is away (503)")
            await expect(page.locator("#health")).to_contain_text("old.")
            redis.thaw()
            await expect(page.locator("#health")).to_be_hidden()


async def test_a_phone_has_every_row_and_button_within_its_width(settings: Settings, tmp_path: Path) -> None:
    from playwright.async_api import expect

    async with running(settings, tmp_path, workers=0) as cluster:
        url = cluster.frontends[0].url
        await cluster.worker("paced", "tests.engines:paced")
        rid = "chatcmpl-" + "0123456789abcdef" * 2
        async with (
            browsing(url, viewport={"width": 360, "height": 740}, color_scheme="dark") as page,
            post(cluster.http, url, chat("100000 0.05", "paced"), X_Request_Id=rid),
        ):
            await expect(page.get_by_role("button", name=f"Cancel {rid}")).to_be_in_viewport(ratio=1)
            await expect(page.get_by_role("table", name="Inflight").get_by_role("row")).to_have_count(1)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360

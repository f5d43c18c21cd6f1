"""Takes the pictures of docs/dashboard.md: `python -m tests.screenshots [FOLDER]`; needs Playwright and chromium."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import Page, async_playwright, expect

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from tests.browser import ARGUMENTS, CHROMIUM
from tests.cluster import ROOT, Cluster, running
from tests.sse import chat, post

CANCELLED = "chatcmpl-summary-of-chapter-7"
FOLDER = ROOT / "docs" / "images"
WIDE, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 844}
WARM_UP_SECS = 45.0  # for the charts to have something to show


async def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedRedis() as redis, TemporaryDirectory() as directory:
        settings = Settings(redis_url=redis.url, redis_timeout_secs=0.5, concurrency=16)
        async with (
            running(settings, Path(directory), frontends=2, workers=0) as cluster,
            pages() as (light, dark, phone),
        ):
            for page in (light, dark, phone):
                await page.goto(cluster.frontends[1].url)
            async with traffic(cluster):
                await asyncio.sleep(WARM_UP_SECS)
                await cluster.workers[2].kill()
                dead = light.locator("#replicas tbody tr", has_text="dead")
                await expect(dead).to_be_visible(timeout=30_000)
                await shoot(light, folder / "light.png")
                await shoot(dark, folder / "dark.png")
                await shoot(phone, folder / "phone.png")
                url, call = cluster.frontends[0].url, chat("100000 0.05", "llama-3-70b")
                async with post(cluster.http, url, call, X_Request_Id=CANCELLED):
                    await cancel(light)
                await shoot(light, folder / "cancelled.png")
                await light.get_by_role("button", name="Close").click()
                redis.freeze()
                await expect(light.locator("#trouble")).to_contain_text("Redis is unavailable")
                await expect(light.locator("#trouble")).to_contain_text("5 s old")
                await shoot(light, folder / "redis-away.png")
                redis.thaw()
                await expect(light.locator("#trouble")).to_be_hidden()


@asynccontextmanager
async def pages() -> AsyncIterator[tuple[Page, Page, Page]]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield (
                await browser.new_page(viewport=WIDE, color_scheme="light"),  # type: ignore[arg-type]
                await browser.new_page(viewport=WIDE, color_scheme="dark"),  # type: ignore[arg-type]
                await browser.new_page(viewport=PHONE, color_scheme="light"),  # type: ignore[arg-type]
            )
        finally:
            await browser.close()


@asynccontextmanager
async def traffic(cluster: Cluster) -> AsyncIterator[None]:
    """Requests of every kind: streaming, waiting for their first token, queued, failing, cancelled, given up."""
    for model in ("llama-3-70b", "qwen-3-8b", "qwen-3-8b"):
        await cluster.worker(model, "tests.engines:paced")
    await cluster.worker("mistral-small", "tests.engines:silent", concurrency=2)
    async with AsyncExitStack() as stack:
        for number in range(6):
            model = ("llama-3-70b", "qwen-3-8b")[number % 2]
            frontend = cluster.frontends[number % 2]
            pace = 0.02 * (1 + number % 4)
            await stack.enter_async_context(post(cluster.http, frontend.url, chat(f"100000 {pace}", model)))
        for _ in range(3):
            await stack.enter_async_context(post(cluster.http, cluster.frontends[0].url, chat("0", "mistral-small")))
        churn = asyncio.create_task(_churn(cluster))
        try:
            yield
        finally:
            churn.cancel()
            await asyncio.gather(churn, return_exceptions=True)


async def _churn(cluster: Cluster) -> None:
    """Short requests that end, one every so often: well, badly, or because their client is gone."""
    number = 0
    while True:
        number += 1
        url, model = cluster.frontends[number % 2].url, ("llama-3-70b", "qwen-3-8b")[number // 2 % 2]
        prompt = "oops no numbers" if number % 19 == 0 else f"{20 + number % 30} 0.01"
        async with post(cluster.http, url, chat(prompt, model)) as stream:
            if number % 11:
                await stream.read()
        await asyncio.sleep(0.15 + 0.1 * (number % 7 == 0))


async def cancel(page: Page) -> None:
    """Cancel a request in the view that watches it."""
    row = page.locator("#inflight tbody tr", has_text=CANCELLED)
    await row.get_by_role("button", name="Watch").click()
    await expect(page.locator("#watch-text")).to_contain_text("20 21 22")
    await page.locator("#detail-cancel").click()
    await page.get_by_role("button", name="Cancel request").click()
    await expect(page.locator("#notices")).to_contain_text("confirmed stopped")
    await expect(page.locator("#watch-status")).to_contain_text("Ended")
    await expect(page.locator("#detail-phase")).to_have_text("cancelled")


async def shoot(page: Page, path: Path) -> None:
    await page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))

"""The dashboard shows whose requests there are, in a real browser. Skipped without Playwright or Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode
from tests.admitting import admit
from tests.browser import CHROMIUM, browsing, chromium
from tests.cluster import running
from tests.conftest import MakeSettings, connect

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=15_000)  # a bound for a busy machine, not a wait

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH")


@pytest.fixture
def browser() -> Iterator[str]:
    with chromium() as endpoint:
        yield endpoint


async def test_owners_have_a_column_once_there_is_one(
    browser: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(lease_secs=60.0, queue_without_workers=True)
    store = Store(connect(settings), settings)
    async with running(settings, tmp_path, workers=0) as cluster, browsing(browser, cluster.frontends[0].url) as page:
        frontend = (await cluster.get("/health"))["frontend"]
        owner = page.locator("#inflight thead th", has_text="owner")
        rows = page.locator("#inflight tbody tr")
        await admit(store, "anonymous", frontend=frontend, on_disconnect="continue")
        await expect(rows).to_have_count(1)
        await expect(owner).to_be_hidden()
        await admit(store, "owned", frontend=frontend, on_disconnect="continue", owner="acme")
        await expect(rows).to_have_count(2)
        await expect(owner).to_be_visible()
        await expect(rows.locator("[data-label=owner]")).to_have_text(["", "acme"])
        await store.cancel("owned", CancelMode.KILL, "enough")
        finished = page.locator("#finished tbody tr", has_text="owned")
        await expect(finished.locator("[data-label=owner]")).to_have_text("acme")
        await expect(owner).to_be_hidden()
        await store.cancel("anonymous", CancelMode.KILL, "enough")
    await store.commands.aclose()


async def test_the_queue_is_shown_with_its_owners_while_something_waits(
    browser: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(lease_secs=60.0, queue_without_workers=True)
    store = Store(connect(settings), settings)
    async with running(settings, tmp_path, workers=0) as cluster, browsing(browser, cluster.frontends[0].url) as page:
        frontend = (await cluster.get("/health"))["frontend"]
        rows = page.locator("#queue tbody tr")
        await expect(page.locator("#live")).to_have_text("Live")
        await expect(page.locator("#queue-section")).to_be_hidden()
        for rid, owner, weight in (("a0", "acme", 4.0), ("a1", "acme", 4.0), ("g0", "globex", 1.0)):
            await admit(store, rid, frontend=frontend, on_disconnect="continue", owner=owner, weight=weight)
        await expect(rows).to_have_count(2)
        await expect(rows.locator("[data-label=owner]")).to_have_text(["acme", "globex"])
        await expect(rows.locator("[data-label=weight]")).to_have_text(["4", "1"])
        await expect(rows.locator("[data-label=queued]")).to_have_text(["2", "1"])
        await expect(page.locator("#queue-count")).to_have_text("3")
        for rid in ("a0", "a1", "g0"):
            await store.cancel(rid, CancelMode.KILL, "enough")
        await expect(page.locator("#queue-section")).to_be_hidden()
    await store.commands.aclose()

"""The dashboard's buttons for replicas, in a real browser. Skipped where there is no Playwright or no Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, browsing, chromium
from tests.cluster import running
from tests.conftest import MakeSettings

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=15_000)  # a bound for a busy machine, not a wait

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as endpoint:
        yield endpoint


async def test_replicas_are_paused_resumed_and_drained(
    browser: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with (
        running(make_settings(lease_secs=5.0), tmp_path, frontends=2) as cluster,
        browsing(browser, cluster.frontends[0].url) as page,
    ):
        rows = page.locator("#replicas tbody tr")
        worker = rows.filter(has_text="worker-")
        state, button = worker.locator("[data-label=state]"), worker.get_by_role("button")
        await expect(rows).to_have_count(3)
        await expect(button.filter(visible=True)).to_have_text(["Pause", "Drain"])
        await worker.get_by_role("button", name="Pause").click()
        await expect(state).to_have_text("paused")
        await expect(state).to_have_attribute("title", re.compile("until it is resumed"))
        await expect(page.locator("#replicas-note")).to_contain_text("they are paused")
        await expect(button.filter(visible=True)).to_have_text(["Resume", "Drain"])
        await worker.get_by_role("button", name="Resume").click()
        await expect(state).to_have_text("ready")
        await expect(page.locator("#notices li")).to_have_count(2)

        dialog = page.get_by_role("dialog", name="Drain this replica?")
        await worker.get_by_role("button", name="Drain").click()
        await dialog.get_by_role("button", name="Keep it").click()
        await expect(dialog).to_be_hidden()
        await expect(state).to_have_text("ready")
        await worker.get_by_role("button", name="Drain").click()
        await dialog.get_by_role("button", name="Drain replica").click()
        await expect(state).to_have_text("left")
        await expect(button.filter(visible=True)).to_have_count(0)
        assert await cluster.workers.pop().process.wait() == 0

        other = rows.filter(has=page.locator("text=frontend-")).filter(has_text=f":{cluster.frontends[1].pid}")
        await expect(other.get_by_role("button").filter(visible=True)).to_have_text(["Drain"])

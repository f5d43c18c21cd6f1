"""A real browser for the tests: one Chromium process, and pages in it that must not complain."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import Page

CHROMIUM = shutil.which("chromium") or ""
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_START_SECS = 20.0
_STEP_MS = 10_000


@contextmanager
def chromium() -> Iterator[str]:
    """Runs one; yields where to connect to it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *ARGUMENTS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{_port(process, Path(profile) / 'DevToolsActivePort')}"
        finally:
            process.terminate()
            process.wait(10)


def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    give_up_at = time.monotonic() + _START_SECS
    while time.monotonic() < give_up_at and process.poll() is None:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) > 1:
            return int(lines[0])
        time.sleep(0.02)
    raise RuntimeError("chromium did not start")


@asynccontextmanager
async def browsing(endpoint: str, url: str, *, may_complain: bool = False, **context: Any) -> AsyncIterator[Page]:
    """The page at `url`; at the end, nothing has been complained about on its console."""
    from playwright.async_api import async_playwright

    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(endpoint)
        try:
            page = await (await browser.new_context(**context)).new_page()
            page.set_default_timeout(_STEP_MS)
            page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.goto(url)
            yield page
            await page.context.close()
        finally:
            await browser.close()
    complaints = [text for text in complaints if "404 (Not Found)" not in text]  # no keys are wanted: no session
    assert may_complain or complaints == []

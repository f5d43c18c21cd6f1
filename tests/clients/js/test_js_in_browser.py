"""The JavaScript client in a real browser, on a page of another origin: a killed frontend, a cancel, an abort."""

from __future__ import annotations

import asyncio
import functools
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import CHROMIUM, browsing, chromium
from tests.clients.js.package import Package
from tests.clients.js.reading import PROGRAM, Reading
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings

if TYPE_CHECKING:
    from playwright.async_api import Page

pytest.importorskip("playwright.async_api", reason="playwright is not installed")

COUNT = 400
HALF = "".join(f"{number} " for number in range(COUNT // 2))
WHOLE = "".join(f"{number} " for number in range(COUNT))
IDS = [f"1-{number}" for number in range(1, COUNT + 1)]
PAGE = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>client</title>'
PERFORM = """async (spec) => {
    const [client, program] = await Promise.all([import("/dist/index.js"), import("/program.mjs")]);
    await program.perform(client, spec, (line) => said(line));
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.clients,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as endpoint:
        yield endpoint


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of another origin than the frontends', with the package as it is installed: nothing is bundled."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    (folder / PROGRAM.name).write_text(PROGRAM.read_text())
    (folder / "dist").symlink_to(package.installed / "dist")
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Opened:
    """The page, with the cluster that it calls."""

    def __init__(self, cluster: Cluster, page: Page, reading: Reading, gate: Path) -> None:
        self.cluster, self.page, self.reading, self.gate = cluster, page, reading, gate
        self.body = {"model": "parts", "messages": [{"role": "user", "content": f"{COUNT} {gate}"}]}

    async def perform(self, method: str, *args: Any, **spec: Any) -> None:
        urls = [frontend.url for frontend in self.cluster.frontends]
        await self.page.evaluate(PERFORM, {"urls": urls, "method": method, "args": args, **spec})

    @asynccontextmanager
    async def half_read(self, *args: Any, **spec: Any) -> AsyncIterator[None]:
        """Stream, and wait for the first half; at the end, the call has come to its end by itself."""
        performing = asyncio.create_task(self.perform("stream", self.body, *args, **spec))
        try:
            await self.reading.has(COUNT // 2)
            yield
            async with asyncio.timeout(30):
                await performing
        finally:
            self.gate.touch()
            performing.cancel()
            await asyncio.gather(performing, return_exceptions=True)


@pytest.fixture
async def opened(make_settings: MakeSettings, browser: str, site: str, tmp_path: Path) -> AsyncIterator[Opened]:
    settings = make_settings(lease_secs=4.0, cors_origins=site)
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker("parts", "tests.engines:in_two_parts")
        async with browsing(browser, site, may_complain=True) as page:
            reading = Reading()
            await page.expose_function("said", reading.add)
            yield Opened(cluster, page, reading, tmp_path / "gate")


async def test_a_stream_goes_on_when_its_frontend_is_killed(opened: Opened) -> None:
    reading = opened.reading
    async with opened.half_read():
        await opened.cluster.frontends.pop(0).kill()
        opened.gate.touch()
    assert reading.error is None
    assert (reading.ids, reading.text, reading.finish_reasons) == (IDS, WHOLE, ["stop"])
    record = await opened.cluster.record(reading.request_id)
    assert (record["status"], record["attempt"]) == ("completed", 1)


async def test_a_reloaded_page_resumes_behind_what_it_has(opened: Opened) -> None:
    reading = opened.reading
    async with opened.half_read({"onDisconnect": "continue", "onAbort": "leave"}, leaveAfter=COUNT // 2):
        pass
    await opened.page.reload()
    opened.gate.touch()
    await opened.perform("resume", reading.request_id, {"after": reading.ids[-1]})
    assert reading.error is None
    assert (reading.ids, reading.text) == (IDS, WHOLE)


async def test_a_request_is_cancelled_at_the_other_frontend(opened: Opened) -> None:
    reading, cluster = opened.reading, opened.cluster
    async with opened.half_read():
        there = cluster.frontends[1].url
        spec = {"urls": [there], "method": "cancel", "args": [reading.request_id, {"waitMs": 10_000}]}
        await opened.page.evaluate(PERFORM, spec)
    assert reading.text == HALF
    errors = [line["error"] for line in reading.lines if "error" in line]
    assert [(error["name"], error["code"]) for error in errors] == [("RequestFailedError", 499)]
    assert reading.value["status"] == "cancelled"
    assert (await cluster.record(reading.request_id))["cancelled_via"] is not None


async def test_an_abort_ends_the_request(opened: Opened) -> None:
    reading = opened.reading
    async with opened.half_read({}, abortAfter=COUNT // 2):
        pass
    assert reading.error is not None
    assert reading.error["message"] == "enough"
    assert (await opened.cluster.record(reading.request_id))["cancel_requested_at"] is not None

"""The dashboard in a real browser, on a real cluster. Skipped where there is no Playwright or no Chromium."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parking import parked
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.browser import CHROMIUM, browsing, chromium
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings, connect
from tests.joining import join, leave
from tests.keys import Keys
from tests.shared_cluster import borrowed, shared_cluster
from tests.sse import chat, post

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=15_000)  # a bound for a busy machine, not a wait

HOSTILE = "<img src=x onerror=document.title='owned'>"

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not on PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The processes for all tests that break nothing. They take `cluster`, which lives in their own event loop."""
    settings = Settings(redis_url=redis_url, namespace=f"dashboard-{secrets.token_hex(4)}", heartbeat_secs=0.5)
    with shared_cluster(_every_model(settings, tmp_path_factory.mktemp("dashboard"))) as cluster:
        yield cluster


@asynccontextmanager
async def _every_model(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await asyncio.gather(
            cluster.worker("paced", "tests.engines:paced"),
            cluster.worker("stubborn", "tests.engines:stubborn"),
            cluster.worker(HOSTILE, "tests.engines:three_then_raise"),
        )
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


async def test_a_request_of_another_frontend_is_watched_and_cancelled(browser: str, cluster: Cluster) -> None:
    a, b = cluster.frontends
    async with browsing(browser, b.url) as page:
        await expect(page.locator("#live")).to_have_text("Live")
        await expect(page.locator("#inflight-note")).to_have_text("No request is inflight.")
        async with post(cluster.http, a.url, chat("100000 0.05", "paced"), X_Request_Id="r1") as stream:
            row = page.locator("#inflight tbody tr", has_text="r1")
            await expect(row.locator("[data-label=phase]")).to_have_text("streaming")
            await expect(row.locator("[data-label=readers]")).to_have_text("1")
            await expect(page.locator("[data-tile=running]")).to_have_text("1")
            await expect(page.locator("#replicas tbody tr")).to_have_count(5)

            await row.get_by_role("button", name="Watch r1").click()
            await expect(page.locator("#watch-text")).to_contain_text("0 1 2 3 4")
            await expect(page.locator("#watch-status")).to_have_text("Live.")
            await expect(row.locator("[data-label=readers]")).to_have_text("2")

            await page.locator("#detail-cancel").click()
            await page.get_by_role("button", name="Keep it").click()
            await expect(page.locator("#cancel")).to_be_hidden()
            await expect(page.locator("#notices li")).to_have_count(0)
            assert (await cluster.record("r1"))["cancel_requested_at"] is None
            await page.locator("#detail-cancel").press("Enter")
            await page.get_by_role("button", name="Cancel request").press("Enter")
            notice = page.locator("#notices li")
            await expect(notice).to_have_text(re.compile(r"r1requested → confirmed stopped in \d+ ms"))
            await stream.read()
        await expect(page.locator("#inflight-note")).to_have_text("No request is inflight.")
        await expect(page.locator("#watch-status")).to_contain_text("Ended: cancelled")
        await expect(page.locator("#record")).to_contain_text("Cancelled from the dashboard")
        for told in ("admitted: frontend", "reader attached: frontend", "by anonymous", "ended: status cancelled"):
            await expect(page.locator("#timeline")).to_contain_text(told)
        ended = page.locator("#finished tbody tr", has_text="r1")
        await expect(ended.locator("[data-label=outcome]")).to_have_text("cancelled")
        await expect(ended.locator("[data-label=reason]")).to_have_text("Cancelled from the dashboard")
        await expect(page.locator("[data-tile=cancels]")).not_to_have_text("0")
    assert (await cluster.record("r1"))["status"] == "cancelled"


async def test_the_tree_of_a_request_is_shown_and_opens_its_requests(browser: str, cluster: Cluster) -> None:
    a, b = cluster.frontends
    async with (
        browsing(browser, b.url) as page,
        post(cluster.http, a.url, chat("100000 0.05", "paced"), X_Request_Id="tree-top") as top,
    ):
        await top.read_tokens(1)
        named = {"X_Request_Id": "tree-child", "X_Parent_Request_Id": "tree-top"}
        async with post(cluster.http, b.url, chat("100000 0.05", "paced"), **named) as child:
            await child.read_tokens(1)
            await page.locator("#inflight tbody tr", has_text="tree-child").click()
            await expect(page.locator("#tree li")).to_have_text(["tree-top running", "tree-child running"])
            await page.locator("#tree").get_by_role("button", name="tree-top").click()
            await expect(page.locator("#detail-id")).to_have_text("tree-top")
            await expect(page.locator("#timeline")).to_contain_text("child started: child tree-child")
            await cluster.http.delete(f"{a.url}/v1/requests/tree-top")
            await child.read()
            await expect(page.locator("#tree li").last).to_have_text("tree-child cancelled by parent:tree-top")


async def test_a_cancel_says_that_it_is_not_confirmed_until_it_is(
    browser: str, cluster: Cluster, tmp_path: Path
) -> None:
    url = cluster.frontends[0].url
    may_end = tmp_path / "may end"
    async with (
        browsing(browser, url) as page,
        post(cluster.http, url, chat(str(may_end), "stubborn"), X_Request_Id="slow") as stream,
    ):
        await page.route("**/cancel?*", lambda route: route.continue_(url=route.request.url.replace("=5000", "=1000")))
        await page.get_by_role("button", name="Cancel slow").click()
        async with page.expect_response(lambda response: response.status == 202):
            await page.get_by_role("button", name="Cancel request").click()
        await expect(page.locator("#notices li")).to_contain_text("not confirmed yet")
        await expect(page.locator("#inflight [data-label=phase]")).to_have_text("cancelling")
        may_end.touch()
        await expect(page.locator("#notices li")).to_contain_text("confirmed stopped in")
        await stream.read()


@asynccontextmanager
async def _live(page: Any) -> AsyncIterator[None]:
    """Run the block once the page shows live data."""
    await expect(page.locator("#live")).to_have_text("Live")
    yield


async def test_it_filters_sorts_and_keeps_rows_as_they_are(browser: str, cluster: Cluster) -> None:
    url = cluster.frontends[0].url
    async with (
        browsing(browser, url) as page,
        _live(page),  # the rates count what ends from here on
        post(cluster.http, url, chat("100000 0.01", "paced"), X_Request_Id="alpha"),
        post(cluster.http, url, chat("100000 0.2", "paced"), X_Request_Id="beta"),
        post(cluster.http, url, chat(HOSTILE, HOSTILE), X_Request_Id="gamma") as failing,
    ):
        await failing.read()
        rows = page.locator("#inflight tbody tr")
        await expect(rows.locator("th")).to_have_text(["alpha", "beta"])
        reason = page.locator("#finished tbody tr", has_text="gamma").locator("[data-label=reason]")
        await expect(reason).to_have_text(f"internal: {HOSTILE}")
        await expect(page.locator("[data-tile='error rate']")).to_have_text(re.compile(r"[1-9]\d*\.\d %"))

        await page.get_by_role("button", name="age").click()
        await expect(rows.locator("th")).to_have_text(["beta", "alpha"])
        await page.locator("#inflight").get_by_role("button", name="tokens", exact=True).click()
        await expect(rows.locator("th")).to_have_text(["alpha", "beta"])
        await page.get_by_label("Filter").fill("BET paced")
        await expect(rows.locator("th")).to_have_text(["beta"])
        await expect(page.locator("#inflight-note")).to_have_text("Found 1 of 2 inflight requests.")
        button = rows.first.get_by_role("button", name="Watch beta")
        await button.focus()
        before = await rows.first.locator("[data-label=tokens]").text_content()
        await expect(rows.first.locator("[data-label=tokens]")).not_to_have_text(before or "")
        await expect(button).to_be_focused()
        await page.get_by_label("Filter").fill("")
        await page.get_by_label("Status").select_option("queued")
        await expect(page.locator("#inflight-note")).to_have_text("None of 2 inflight requests found.")
        assert await page.title() == "2 inflight – lifecycle"
        assert await page.locator("td img, th img").count() == 0


async def test_ten_thousand_would_be_as_many_rows_as_fifty(browser: str, cluster: Cluster) -> None:
    async with (
        parked(cluster.settings, 120),
        browsing(browser, cluster.frontends[0].url) as page,
    ):
        await expect(page.locator("#inflight tbody tr")).to_have_count(50)
        await expect(page.locator("#inflight-note")).to_have_text("The 50 oldest of 120 inflight requests.")
        await page.get_by_role("button", name="Show more").click()
        await expect(page.locator("#inflight tbody tr")).to_have_count(100)
        await expect(page.locator("[data-tile=queued]")).to_have_text("120")
        url = cluster.frontends[0].url + "/v1/requests/cancel"
        assert (await cluster.http.post(url, json={"model": "parked"})).status_code == 200


async def test_a_killed_worker_is_shown_as_dead_and_a_lost_frontend_is_noticed(
    browser: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with (
        running(make_settings(lease_secs=5.0), tmp_path, workers=2) as cluster,
        browsing(browser, cluster.frontends[0].url, may_complain=True) as page,
    ):
        rows = page.locator("#replicas tbody tr")
        await expect(rows.locator("[data-mark=ready]")).to_have_count(3)
        await cluster.workers[0].kill()
        dead = page.locator("#replicas tbody tr", has=page.locator("[data-mark=dead]"))
        await expect(dead).to_contain_text("echo")
        await expect(dead.locator("[data-label=heartbeat]")).to_have_text(re.compile(r"gone \d+ s ago"))
        await cluster.workers[1].terminate()
        await expect(rows.locator("[data-mark=left]")).to_have_count(1)
        await expect(page.locator("#replicas-count")).to_have_text("1 + 1 dead")
        await expect(page.locator("#replicas-note")).to_contain_text("No worker is alive")
        assert await cluster.frontends[0].terminate() == 0  # a viewer does not hold it up
        await expect(page.locator("#trouble")).to_contain_text("cannot be reached")
        await expect(page.locator("#live")).to_have_text("Stale")


async def test_a_worker_that_is_not_ready_says_why(browser: str, make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(lease_secs=60.0)
    store = Store(connect(settings), settings)

    async def announce(name: str, **about: Any) -> None:
        await join(store, name, Role.WORKER, {"models": ["m"], "concurrency": 1, **about}, ["m"])

    async with running(settings, tmp_path, workers=0) as cluster, browsing(browser, cluster.frontends[0].url) as page:
        await announce("w-loading", state="starting")
        await announce("w-sick", state="unhealthy", error="no route to <b>upstream</b>")
        states = page.locator("#replicas tbody tr [data-label=state]")
        sick = states.and_(page.locator("[data-mark=unhealthy]"))
        await expect(sick).to_have_text("unhealthy: no route to <b>upstream</b>")
        await expect(sick).to_have_attribute("title", re.compile("takes nothing new .* no route to <b>upstream</b>"))
        await expect(states.and_(page.locator("[data-mark=starting]"))).to_have_attribute("title", re.compile("loads"))
        await expect(page.locator("#replicas-note")).to_contain_text("they are starting or unhealthy")
        colors = [await state.evaluate("cell => getComputedStyle(cell).color") for state in await states.all()]
        assert len(set(colors)) == 3, "ready, starting and unhealthy look different"
        await announce("w-sick", state="ready")
        await expect(sick).to_have_count(0)
        await expect(page.locator("#replicas-note")).to_have_text("")
        for name in ("w-loading", "w-sick"):
            await leave(store, name, Role.WORKER)
    await store.commands.aclose()


async def test_it_says_when_redis_is_away_and_when_it_is_back(
    browser: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    with EmbeddedRedis() as redis:
        settings = make_settings(redis_url=redis.url, redis_timeout_secs=0.5, lease_secs=10.0)
        async with running(settings, tmp_path) as cluster, browsing(browser, cluster.frontends[0].url) as page:
            await expect(page.locator("#replicas tbody tr")).to_have_count(2)
            await expect(page.locator("#trouble")).to_be_hidden()
            redis.freeze()
            await expect(page.locator("#trouble")).to_contain_text("Redis is unavailable")
            await expect(page.locator("#trouble")).to_contain_text("old.")
            redis.thaw()
            await expect(page.locator("#trouble")).to_be_hidden()
            await expect(page.locator("#live")).to_have_text("Live")


async def test_everything_can_be_done_with_the_keyboard(browser: str, cluster: Cluster) -> None:
    url = cluster.frontends[0].url
    async with (
        browsing(browser, url) as page,
        post(cluster.http, url, chat("100000 0.05", "paced"), X_Request_Id="first"),
        post(cluster.http, url, chat("100000 0.05", "paced"), X_Request_Id="second") as stream,
    ):
        press = page.keyboard.press
        await expect(page.locator("#inflight tbody tr")).to_have_count(2)
        await press("?")
        await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
        await press("Escape")
        await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
        await page.wait_for_function("!document.activeElement.closest('dialog')")  # moved with the next frame
        await press("/")
        await expect(page.get_by_label("Filter")).to_be_focused()
        await page.get_by_label("Filter").blur()
        await press("j")
        await press("j")
        row = page.locator("#inflight tbody tr", has_text="second")
        await expect(row).to_be_focused()
        await press("Enter")
        await expect(page.locator("#detail-id")).to_have_text("second")
        await expect(page.locator("#record")).to_contain_text("created_at")
        await press("Escape")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(row).to_be_focused()
        await press("w")
        await expect(page.locator("#watch-text")).to_contain_text("0 1 2")
        await press("Escape")
        await expect(page.locator("#detail")).to_be_hidden()
        await expect(row).to_be_focused()
        await press("c")
        await expect(page.locator("#cancel-id")).to_have_text("second")
        await expect(page.get_by_role("button", name="Keep it")).to_be_focused()
        await press("Tab")
        await press("Enter")
        await expect(page.locator("#notices li")).to_contain_text("confirmed stopped")
        await stream.read()


async def test_it_asks_for_a_key_where_one_is_wanted(browser: str, cluster: Cluster) -> None:
    """The frontend here wants none, so what one that does would answer is put in between."""
    logged_in = False

    async def guard(route: Any) -> None:
        nonlocal logged_in
        path = route.request.url.partition("?")[0].removeprefix(cluster.frontends[0].url)
        if path == "/login":
            logged_in = route.request.post_data_json == {"key": "right"}
            await route.fulfill(status=204 if logged_in else 403)
        elif path == "/logout":
            logged_in = False
            await route.fulfill(status=204)
        elif path.startswith("/v1/") and not logged_in:
            await route.fulfill(status=401, json={"error": {"message": "no key", "type": "authentication_error"}})
        elif path == "/v1/session":
            await route.fulfill(json={"authenticated": True, "name": "ada", "role": "operator"})
        else:
            await route.continue_()

    async with browsing(browser, "about:blank", may_complain=True) as page:
        await page.route("**/*", guard)
        await page.goto(cluster.frontends[0].url)
        dialog = page.get_by_role("dialog", name="Log in")
        await expect(dialog).to_be_visible()
        await page.get_by_label("API key", exact=True).fill("wrong")
        await page.keyboard.press("Enter")
        await expect(dialog).to_contain_text("not accepted")
        await page.get_by_label("API key", exact=True).fill("right")
        await page.get_by_role("button", name="Log in").click()
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#live")).to_have_text("Live")
        await expect(page.locator("#who")).to_have_text("ada (operator)")
        await page.get_by_role("button", name="Log out").click()
        await expect(dialog).to_be_visible()


async def test_a_log_in_with_a_real_key_shows_the_cluster_and_can_cancel(
    browser: str, cluster: Cluster, tmp_path: Path
) -> None:
    keys = Keys.make(tmp_path)
    frontend = await cluster.frontend(api_keys=str(keys.file))
    try:
        async with browsing(browser, frontend.url, may_complain=True) as page:
            await page.get_by_label("API key", exact=True).fill(keys.of["ops"])
            await page.get_by_role("button", name="Log in").click()
            await expect(page.locator("#live")).to_have_text("Live")
            await expect(page.locator("#who")).to_have_text("ops (operator)")
            assert keys.of["ops"] not in await page.evaluate("document.cookie + JSON.stringify(localStorage)")
            calls = chat("100000 0.05", "paced")
            async with post(cluster.http, frontend.url, calls, X_Request_Id="r-keys", **keys.bearer("acme")) as stream:
                await stream.read_tokens(1)
                status = await page.evaluate("fetch('v1/requests/r-keys', {method: 'DELETE'}).then(r => r.status)")
                assert status in (200, 202), "the browser says that its own page has sent it"
                await stream.read()
            await page.get_by_role("button", name="Log out").click()
            await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
    finally:
        await frontend.terminate()
        cluster.frontends.remove(frontend)


async def test_a_phone_has_every_row_and_button_within_its_width(browser: str, cluster: Cluster) -> None:
    url = cluster.frontends[0].url
    rid = "chatcmpl-" + "0123456789abcdef" * 2
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    async with (
        browsing(browser, url, **phone) as page,
        post(cluster.http, url, chat("100000 0.05", "paced"), X_Request_Id=rid),
    ):
        button = page.get_by_role("button", name=f"Watch {rid}")
        await button.scroll_into_view_if_needed()
        await expect(button).to_be_in_viewport(ratio=0.9)
        await expect(page.get_by_role("table", name="Inflight").get_by_role("row")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await button.click()
        await expect(page.locator("#watch-text")).to_contain_text("0 1 2")
        box = await page.locator("#detail").bounding_box()
        assert box is not None
        assert box["x"] == 0
        assert box["width"] > 300

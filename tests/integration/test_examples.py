"""Every example runs, against two frontends, and shows what it says it does."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import lifecycle
from lifecycle.settings import Settings, as_environment
from tests import surface
from tests.browser import browsing, chromium
from tests.cluster import ROOT, Cluster, running
from tests.shared_cluster import borrowed, shared_cluster
from tests.sse import resume, text_of

EXAMPLES = ROOT / "examples"
SENTENCE = "the quick brown fox jumps over the lazy dog"
LONGEST_LINES = 60
LONGEST_LINES_OF = {"transport.js": 120, "whole_surface.py": 200}


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The processes. Tests take `cluster`, which lives in their own event loop."""
    settings = Settings(
        redis_url=redis_url,
        namespace=f"examples-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
    )
    directory = tmp_path_factory.mktemp("examples")
    shutil.copy(EXAMPLES / "ngram.py", directory)
    with shared_cluster(_with_the_example_engine(settings, directory)) as cluster:
        yield cluster


@asynccontextmanager
async def _with_the_example_engine(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2) as cluster:
        await cluster.worker("ngram", "ngram:generate")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


async def run(cluster: Cluster, *command: str) -> str:
    """Return what the command prints; it must exit with 0."""
    urls = [frontend.url for frontend in cluster.frontends]
    process = await asyncio.create_subprocess_exec(
        *command, *urls, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(30):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH")


async def shows_resuming_and_cancelling(cluster: Cluster, printed: str) -> None:
    before = re.search(r"^(\S+): [\"'](.*)[\"'] up to (\S+), and the connection is gone$", printed, re.MULTILINE)
    after = re.search(r"^went on at the other frontend: [\"'](.*)[\"']$", printed, re.MULTILINE)
    assert before, printed
    assert after, printed
    assert after[1].startswith(before[2])
    assert " ".join([SENTENCE] * 5).startswith(after[1])
    assert "cancelled: cancelled\n" in printed
    assert "the stream ended with: Cancelled by request" in printed
    assert (await cluster.record(before[1]))["status"] == "cancelled"


async def test_openai_sdk(cluster: Cluster) -> None:
    printed = await run(cluster, sys.executable, str(EXAMPLES / "openai_sdk.py"))
    await shows_resuming_and_cancelling(cluster, printed)


async def test_fetch(cluster: Cluster) -> None:
    need("node")
    await shows_resuming_and_cancelling(cluster, await run(cluster, "node", str(EXAMPLES / "fetch.mjs")))


async def test_openai_for_node(cluster: Cluster) -> None:
    need("node")
    if not (EXAMPLES / "node_modules" / "openai").exists():
        pytest.skip("the openai package for node is not installed: cd examples && npm install")
    printed = await run(cluster, "node", str(EXAMPLES / "openai_node.mjs"))
    rid = printed.partition(":")[0]
    assert "cancelled: cancelled\n" in printed
    assert (await cluster.record(rid))["status"] == "cancelled"


async def test_curl(cluster: Cluster) -> None:
    need("curl", "sh")
    printed = await run(cluster, str(EXAMPLES / "curl.sh"))
    _, runs, resumed, cancelled = re.split(r"^(?:it runs on|from its|cancelled,).*\n", printed, flags=re.MULTILINE)
    assert '"status":"running"' in runs
    assert "id: 1-3\n" in resumed
    assert '"status":"cancelled"' in cancelled


async def test_the_whole_surface_of_the_library_works(settings: Settings) -> None:
    environment = as_environment(settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "whole_surface.py"), stdout=asyncio.subprocess.PIPE, env=environment
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    assert "all of it works" in printed.decode()


def test_the_example_of_the_whole_surface_names_all_of_it() -> None:
    source = (EXAMPLES / "whole_surface.py").read_text()
    methods = re.findall(
        r"^  (?:Async)?(?:Client|Tracker|Run|Resumed|Worker)\.([a-z]\w*)", surface.text(), re.MULTILINE
    )
    wanted = {*lifecycle.__all__, *lifecycle.fastapi.__all__, *methods}
    unused = {"close", "aclose", "id", "settings"}  # by their context managers, and plain values
    assert {name for name in wanted - unused if not re.search(rf"\b{name}\b", source)} == {"TrackedCall"}


async def test_an_autoscaler_starts_a_worker_for_what_waits_and_ends_it(settings: Settings, tmp_path: Path) -> None:
    scaled = settings.model_copy(update={"queue_without_workers": True})
    environment = as_environment(scaled) | {"PYTHONPATH": str(ROOT)}
    async with running(scaled, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("scaled")  # the model becomes known, and has no worker then
        await worker.terminate()
        cluster.workers.remove(worker)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / "autoscale.py"),
            "scaled",
            "echo",
            "1",
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        try:
            call = {"model": "scaled", "messages": [{"role": "user", "content": "x"}]}
            answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=call, timeout=40)
            assert answer.status_code == 200, answer.text
            assert (await process.stdout.readline()).decode() == "1 inflight: 1 workers\n"
            async with asyncio.timeout(30):
                while (await process.stdout.readline()).decode() != "idle: no worker\n":
                    pass
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 30)


async def test_an_engine_around_a_model(cluster: Cluster) -> None:
    url = cluster.frontends[0].url + "/v1/completions"
    body = {"model": "ngram", "prompt": "the", "max_tokens": 7, "seed": 1}
    answers = [(await cluster.http.post(url, json=body)).json() for _ in range(2)]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["choices"][0]["finish_reason"] == "length"
    assert len(answers[0]["choices"][0]["text"].split()) == 7
    assert answers[0]["usage"]["prompt_tokens"] == 1


async def test_a_page_that_is_reloaded(cluster: Cluster) -> None:
    pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    need("chromium")
    from playwright.async_api import expect

    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "browser" / "serve.py"),
        "--port",
        "0",
        cluster.frontends[0].url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        url = (await server.stdout.readline()).decode().strip()
        with chromium() as endpoint:
            async with browsing(endpoint, url) as page:
                await page.click("button")
                await expect(page.locator("#text")).to_contain_text("quick brown")
                await page.reload()
                await expect(page.locator("#state")).to_have_text("done", timeout=20_000)
                record = next(r for r in (await cluster.get("/v1/requests"))["data"] if r["id"].startswith("web-"))
                async with resume(cluster.http, cluster.frontends[1].url, record["id"]) as stream:
                    whole = text_of(await stream.read())
                assert await page.locator("#text").text_content() == whole
                assert (record["status"], whole.count(SENTENCE)) == ("completed", 5)
    finally:
        server.kill()
        await server.wait()


def test_they_are_short_and_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    files = [
        path
        for path in EXAMPLES.rglob("*")
        if path.suffix in (".py", ".js", ".mjs", ".jsx", ".sh", ".html") and "node_modules" not in path.parts
    ]
    assert len(files) == 14
    for path in files:
        assert len(path.read_text().splitlines()) <= LONGEST_LINES_OF.get(path.name, LONGEST_LINES), path
        assert path.name in readme or path.parent.name in readme

"""deploy/nginx.conf in a real nginx, in front of two real frontends."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import ROOT, Cluster, running
from tests.sse import chat, error_of, post, resume, text_of
from tests.waiting import wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

UPSTREAM = "x-upstream"  # added for the tests: who answered, of several the last one


def configured(cluster: Cluster, port: int) -> str:
    """Return the deployed configuration with the cluster's addresses, and folders that a user's nginx may write to."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for number, frontend in enumerate(cluster.frontends, 1):
        text = text.replace(f"frontend-{number}:8000", frontend.url.removeprefix("http://"))
    text = text.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    own = [
        f"{kind}_temp_path {cluster.directory}/{kind};" for kind in ("proxy", "client_body", "fastcgi", "uwsgi", "scgi")
    ]
    own += ["access_log off;", f"add_header {UPSTREAM} $upstream_addr always;"]
    return text.replace("http {", "http {\n" + "\n".join(own), 1)


@asynccontextmanager
async def balanced(settings: Settings, directory: Path) -> AsyncIterator[tuple[Cluster, str]]:
    """A cluster and the URL of the nginx in front of it."""
    async with running(settings, directory, frontends=2, workers=1) as cluster:
        port, path = free_port(), directory / "nginx.conf"
        path.write_text(configured(cluster, port))
        nginx = [str(NGINX), "-p", str(directory), "-c", str(path), "-e", "stderr"]
        with (directory / "nginx.log").open("wb") as log:
            own = f"daemon off; pid {directory}/nginx.pid;"
            process = await asyncio.create_subprocess_exec(*nginx, "-g", own, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"

        async def answers() -> bool:
            assert process.returncode is None, (directory / "nginx.log").read_text()
            try:
                return (await cluster.http.get(url + "/ready")).status_code == 200
            except httpx2.TransportError:
                return False

        try:
            await wait_until(answers)
            yield cluster, url
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(10):
                await process.wait()


async def test_a_stream_comes_token_by_token_and_is_cancelled_resumed_and_left_through_nginx(
    settings: Settings, tmp_path: Path
) -> None:
    async with balanced(settings, tmp_path) as (cluster, url):
        await cluster.worker("silent", "tests.engines:silent")
        http = cluster.http

        async with post(http, url, chat("3", "silent"), X_Request_Id="held") as stream:
            # Its engine is silent from here on: what is read was not waiting in a buffer to be filled.
            assert await stream.read_tokens(3) == "0 1 2 "
            answer = await http.post(f"{url}/v1/requests/held/cancel?wait_ms=5000&reason=enough")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            assert answer.headers[UPSTREAM] != stream.response.headers[UPSTREAM], "another replica cancelled it"
            error = error_of(await stream.read())
            assert error is not None
            assert error["message"] == "enough"

        words = "a stream that is broken off and resumed " * 3
        headers = {"X_Request_Id": "resumed", "X_On_Disconnect": "continue"}
        async with post(http, url, chat(words), **headers) as stream:
            text = await stream.read_tokens(4)
        async with resume(http, url, "resumed", after=str(stream.events[-1].id or "")) as stream:
            text += text_of(await stream.read())
        assert text == words

        async with post(http, url, chat("1", "silent"), X_Request_Id="left") as stream:
            await stream.read_tokens(1)
        await _ends(cluster, "left", "cancelled")
        unary = asyncio.create_task(
            http.post(
                url + "/v1/chat/completions", json=chat("1", "silent", stream=False), headers={"X-Request-Id": "unary"}
            )
        )
        await wait_until(lambda: _has(cluster, "unary", "running"))
        unary.cancel()
        await asyncio.gather(unary, return_exceptions=True)
        await _ends(cluster, "unary", "cancelled")


async def test_a_frontend_that_drains_or_is_gone_is_passed_over_and_nothing_starts_twice(
    settings: Settings, tmp_path: Path
) -> None:
    async with balanced(settings, tmp_path) as (cluster, url):
        leaving, staying = cluster.frontends
        await cluster.worker("silent", "tests.engines:silent")
        async with post(cluster.http, leaving.url, chat("1", "silent"), X_Request_Id="last") as stream:
            await stream.read_tokens(1)
            leaving.signal(signal.SIGTERM)
            await wait_until(lambda: _drains(cluster, leaving.url))
            tried = [await _say(cluster, url, f"drained-{number}") for number in range(6)]
            assert any(leaving.url.removeprefix("http://") in upstream for upstream in tried), "it refused, with 503"
            await cluster.http.post(f"{staying.url}/v1/requests/last/cancel")
        await leaving.process.wait()
        cluster.frontends.remove(leaving)
        for number in range(4):
            await _say(cluster, url, f"gone-{number}")
        ended = await cluster.metric("lifecycle_cluster_requests_total", status="success")
        assert ended == 10

        answer = await cluster.http.post(
            url + "/v1/chat/completions", json=chat("again"), headers={"X-Request-Id": "gone-0"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "request_id_in_use")


async def _say(cluster: Cluster, url: str, rid: str) -> str:
    """Send a request, and return the upstream that nginx has chosen for it."""
    answer = await cluster.http.post(
        url + "/v1/chat/completions", json=chat("hi", stream=False), headers={"X-Request-Id": rid}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.headers[UPSTREAM])


async def _drains(cluster: Cluster, url: str) -> bool:
    return (await cluster.http.get(url + "/ready")).status_code == 503


async def _has(cluster: Cluster, rid: str, status: str) -> bool:
    answer = await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{rid}")
    return answer.status_code == 200 and answer.json()["status"] == status


async def _ends(cluster: Cluster, rid: str, status: str) -> None:
    """Its client has gone away; the engine has stopped, as its worker confirms."""
    await wait_until(lambda: _has(cluster, rid, status))
    assert (await cluster.record(rid))["worker"]

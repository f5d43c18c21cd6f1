"""An application with `lifecycle.fastapi` under every ASGI server: streams, errors, disconnects, resumes, cancels."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import orjson
import pytest

import lifecycle
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings, as_environment
from tests.cluster import ROOT, START_SECS
from tests.library import given
from tests.waiting import wait_until

UVICORN = ("-m", "uvicorn", "--factory", "--host", "127.0.0.1", "--log-level", "warning", "--port", "{port}", "{app}")
SERVERS = {
    "uvicorn-httptools": (*UVICORN, "--http", "httptools"),
    "uvicorn-h11": (*UVICORN, "--http", "h11", "--loop", "asyncio"),
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "{app}()"),
    "granian": (
        "-m",
        "granian",
        "--interface",
        "asgi",
        "--factory",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "{app}",
    ),
}
APPS = {
    "tests.library_app:make": "",
    "tests.library_app:behind_middlewares": "",
    "tests.library_app:mounted": "/inner",
    "tests.instrumented_app:instrumented": "",
}


def server(name: str) -> object:
    module = name.partition("-")[0]
    missing = importlib.util.find_spec(module) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed"))


def application(name: str) -> object:
    missing = [m for m in ("sentry_sdk", "opentelemetry.instrumentation") if importlib.util.find_spec(m) is None]
    is_missing = name.startswith("tests.instrumented_app:") and bool(missing)
    return pytest.param(name, marks=pytest.mark.skipif(is_missing, reason=f"{missing} are not installed"))


@asynccontextmanager
async def serving(
    settings: Settings, name: str, app: str, directory: Path, *, factory: bool = True
) -> AsyncIterator[httpx2.AsyncClient]:
    """Run a server with the application that the function `app` makes, or with the one of that name."""
    port = free_port()
    argv = [word.format(port=port, app=app) for word in SERVERS[name] if factory or word != "--factory"]
    if not factory:
        argv = [word.removesuffix("()") for word in argv]
    environment = as_environment(settings) | {"PYTHONPATH": str(ROOT), "LIFECYCLE_ENDPOINT": "agent"}
    log = directory / f"server-{port}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, env=environment, cwd=directory, stdout=output, stderr=output, start_new_session=True
        )
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:

        async def listens() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                await http.get("/nothing")
            except httpx2.TransportError:
                return False
            return True

        try:
            await wait_until(listens, timeout=START_SECS)
            yield http
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                raise AssertionError(f"{name} did not end:\n{log.read_text()}") from None


def data_of(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("app", [application(name) for name in APPS])
@pytest.mark.parametrize("name", [server(name) for name in SERVERS])
async def test_streams_errors_and_disconnects(settings: Settings, tmp_path: Path, name: str, app: str) -> None:
    prefix = APPS[app]
    async with (
        serving(settings, name, app, tmp_path) as http,
        lifecycle.AsyncClient(**given(settings)) as client,
    ):
        answer = await http.post(prefix + "/three", headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.startswith('id: 1-1\ndata: {"n":1}\n\nid: 1-2\n')
        assert data_of(answer.text)[-1] == "[DONE]"
        if app.endswith("behind_middlewares"):
            assert answer.headers["x-passed"] == "yes"

        again = await http.post(prefix + "/three", headers={"x-request-id": "mine"})
        assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
        assert (await http.post(prefix + "/three", headers={"x-request-id": "a b"})).status_code == 400

        lines = await http.post(prefix + "/broken", headers={"accept": "application/x-ndjson"})
        first, error = map(orjson.loads, lines.text.splitlines())
        assert first == "first"
        assert (error["error"]["message"], error["error"]["code"]) == ("no more", "no_more")

        async with http.stream("POST", prefix + "/count", headers={"x-request-id": "gone"}) as response:
            assert response.status_code == 200
            events = response.aiter_lines()  # held, because the connection is closed with it
            assert await anext(events) == "id: 1-1"
            assert (await client.inflight()).running == 1
        await wait_until(lambda: has_status(client, "gone", "cancelled"))
        assert (await client.get("gone")).cancelled_by == "disconnect"

        headers = {"x-request-id": "goes-on"}
        async with http.stream("POST", prefix + "/count?on_disconnect=continue", headers=headers) as response:
            events = response.aiter_lines()
            while (await anext(events)) != 'data: {"n":3}':
                pass
        path = f"{prefix}/v1/requests/goes-on"
        async with http.stream("GET", f"{path}/stream", headers={"last-event-id": "1-3"}) as response:
            events = response.aiter_lines()
            assert [await anext(events), await anext(events)] == ["id: 1-4", 'data: {"n":4}']
        cancelled = await http.post(f"{path}/cancel", json={"reason": "enough", "wait_ms": 5000})
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        rest = await http.get(f"{path}/stream", params={"after": "1-3"})
        assert orjson.loads(data_of(rest.text)[-2])["error"]["error_type"] == "cancelled"
        listed = (await http.get(prefix + "/v1/requests", params={"status": "cancelled"})).json()
        assert {record["id"] for record in listed["data"]} == {"gone", "goes-on"}
        assert (await http.get(prefix + "/v1/inflight")).json()["total"] == 0


async def has_status(client: lifecycle.AsyncClient, rid: str, status: str) -> bool:
    return (await client.get(rid)).status == status

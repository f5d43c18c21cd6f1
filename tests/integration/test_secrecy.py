"""Prompts and API keys are in no log, metric, record or error message, whichever fault occurs."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.cli import main
from tests.cluster import running
from tests.conformance.calls import endless
from tests.conftest import MakeSettings
from tests.keys import Keys
from tests.sse import chat, post
from tests.waiting import wait_until

PROMPT = f"canary-{secrets.token_hex(8)}"
WRONG = f"lc-canary-{secrets.token_hex(8)}"

BROKEN = """
async def generate(request, context):
    yield "a"
    raise ValueError("it broke")
"""
"""What an engine says of its failure is told; this one keeps the prompt to itself."""


def mistaken() -> list[Any]:
    """Bodies that are refused, each with the prompt in it."""
    message = {"role": "user", "content": PROMPT}
    body = {"model": "echo", "messages": [message]}
    return [
        f'{{"model": "echo", "messages": ["{PROMPT}"',
        f'"{PROMPT}"',
        [PROMPT],
        {"model": "echo", "messages": PROMPT},
        {"model": "echo", "messages": [PROMPT]},
        {"model": "echo", "messages": [{"role": [PROMPT], "content": PROMPT}]},
        {"model": "echo", "messages": [{"role": "user", "content": {"text": PROMPT}}]},
        {**body, "temperature": PROMPT},
        {**body, "stream": PROMPT},
        {**body, "n": 2},
        {**body, "stop": {"x": PROMPT}},
        {**body, "tools": [PROMPT]},
        {**body, "model": "nosuch"},
        {**body, "messages": [message] * 20_000},
    ]


async def test_prompts_and_keys_stay_where_they_belong(
    make_settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file), log_level="debug", max_body_bytes=1_000_000)
    (tmp_path / "engine.py").write_text(BROKEN)
    shown: list[str] = []

    def note(answer: httpx2.Response) -> httpx2.Response:
        shown.append(f"{answer.headers}\n{answer.text}")
        return answer

    async with running(settings, tmp_path, headers=keys.bearer("ops")) as cluster:
        url, http = cluster.frontends[0].url, cluster.http
        await cluster.worker("broken", "engine:generate")
        for body in mistaken():
            content = {"content": body} if isinstance(body, str) else {"json": body}
            answer = note(await http.post(url + "/v1/chat/completions", **content))
            assert answer.status_code in (400, 404, 413), body
        for wrong in (WRONG, f"{WRONG}é", WRONG * 1000):
            headers = {b"Authorization": f"Bearer {wrong}".encode()}
            assert note(await http.get(url + "/v1/models", headers=headers)).status_code in (400, 401)
            assert note(await http.post(url + "/login", json={"key": wrong})).status_code in (401, 413)
        note(await http.post(url + "/login", json={"key": keys.of["ops"]}))
        note(await http.get(f"{url}/v1/inflight?model=x", headers=keys.bearer("acme")))

        done = await http.post(url + "/v1/chat/completions", json=chat(PROMPT, stream=False))
        assert PROMPT in done.text
        failed = note(await http.post(url + "/v1/chat/completions", json=chat(PROMPT, "broken", stream=False)))
        assert failed.status_code == 500
        late = {**chat(PROMPT, echo_repeat=10**9), "stream": False}
        note(await http.post(url + "/v1/chat/completions", json=late, headers={"X-Deadline-Secs": "0.2"}))
        async with post(http, url, chat(PROMPT, echo_repeat=10**9), X_Request_Id="left"):
            pass

        async def cancelled() -> bool:
            return bool((await cluster.record("left"))["status"] == "cancelled")

        await wait_until(cancelled)
        async with post(http, url, {**endless(), **chat(PROMPT, echo_repeat=10**9)}, X_Request_Id="orphan") as stream:
            await stream.read_tokens(1)
            await cluster.workers[0].kill()
            await stream.read()
        for path in (
            "/v1/requests",
            "/v1/requests/left",
            "/v1/requests/orphan",
            "/v1/inflight",
            "/v1/replicas",
            "/metrics",
            "/health",
            "/v1/session",
            "/openapi.json",
        ):
            assert note(await http.get(url + path)).status_code == 200
        for command in (["ps", "--json"], ["inflight", "--json"], ["doctor", "--json"]):
            where = ["--redis-url", settings.redis_url, "--namespace", settings.namespace]
            await asyncio.to_thread(main.run, [*command, *where])
        logs = [replica.log for replica in (*cluster.frontends, *cluster.workers)]
    shown += capsys.readouterr()
    shown += [log.read_text() for log in logs]
    assert any("request ended" in text for text in shown), "the logs are those that were meant"
    for secret in (PROMPT, WRONG, *keys.of.values()):
        assert not [line for text in shown for line in text.splitlines() if secret in line]

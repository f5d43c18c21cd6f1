"""Codex works on a task through the cluster as it does with the engine itself."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.clients.features import CODEX, CODEX_CLIENT
from tests.clients.replay import replaying
from tests.clients.scripted import ANSWERS, CHAT_PREFIX
from tests.clients.scripted_replay import ScriptedReplay, chat_only, in_front_of, native
from tests.shared_cluster import shared_cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.clients,
    pytest.mark.skipif(bool(CODEX_CLIENT.what_is_missing()), reason=CODEX_CLIENT.what_is_missing() or "it is here"),
]

BOUND_SECS = 60.0
QUESTION = "What is 6 * 7?"
NOWHERE = "http://127.0.0.1:9"  # a proxy for all but the engine, so that nothing calls home
# For chat upstreams, without the tools that only OpenAI's own servers have.
CONFIGURATION = """
model = "{model}"
model_provider = "lifecycle"
web_search = "disabled"
check_for_update_on_startup = false

[agents]
enabled = false

[model_providers.lifecycle]
name = "lifecycle"
base_url = "{url}/v1"
wire_api = "responses"
"""


@dataclass
class Engines:
    """The upstreams, and the frontends before them."""

    native: ScriptedReplay
    chat: ScriptedReplay
    urls: list[str]


@pytest.fixture(scope="module")
def engines(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"codex-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
    )
    directory = tmp_path_factory.mktemp("codex")
    with (
        replaying(native()) as engine,
        replaying(chat_only()) as chat,
        shared_cluster(in_front_of(engine, chat, settings, directory)) as cluster,
    ):
        yield Engines(engine, chat, [frontend.url for frontend in cluster.frontends])


def work(url: str, model: str, directory: Path) -> list[dict[str, Any]]:
    """Let codex answer the question in a new folder, and return what it reports of its work."""
    home, folder = directory / f"home-{secrets.token_hex(4)}", directory / f"work-{secrets.token_hex(4)}"
    home.mkdir()
    folder.mkdir()
    (home / "config.toml").write_text(CONFIGURATION.format(model=model, url=url))
    run = subprocess.run(
        [
            CODEX / "node_modules" / ".bin" / "codex",
            *("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", QUESTION),
        ],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CODEX_HOME": str(home),
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_SECS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / "answer").read_text() == "42\n"
    events = [json.loads(line) for line in run.stdout.splitlines()]
    return [event for event in events if event["type"] != "thread.started" and _item_type(event) != "error"]


def _item_type(event: dict[str, Any]) -> str | None:
    return str(event["item"]["type"]) if "item" in event else None


def test_it_runs_a_command_and_answers(engines: Engines, tmp_path: Path) -> None:
    direct = work(engines.native.url, "codex", tmp_path)
    assert [_item_type(event) for event in direct if event["type"] == "item.completed"] == [
        "agent_message",
        "command_execution",
        "agent_message",
    ]
    assert direct[-2]["item"]["text"] == ANSWERS["codex"].text
    for url in engines.urls:
        assert work(url, "codex", tmp_path) == direct
        assert work(url, CHAT_PREFIX + "codex", tmp_path) == direct

    sent = [call.body["input"] for call in engines.native.calls]
    assert len(sent) == 6
    for first, second in zip(sent[::2], sent[1::2], strict=True):
        assert second[: len(first)] == first
        assert "42\n" in second[-1]["output"]
    told = [call.body["messages"][-1] for call in engines.chat.calls]
    assert [message["role"] for message in told] == ["user", "tool"] * 2
    assert "42\n" in told[1]["content"]

"""Run a client program against the engine itself and through the cluster, and keep what it printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.clients.replay import Replay
from tests.cluster import ROOT
from tests.upstream import Exchange

PROGRAM_SECS = 150.0  # for a machine that is busy; they take a few seconds, LiteLLM ten
_TIMES = ("created", "created_at", "timings", "timestamp")  # `timings` is llama.cpp's
_BESIDE_CONTENT = ("tool_calls", "reasoning", "reasoning_content")
_SET_BY_THE_WORKER = ("stream", "stream_options")
_ID = re.compile(
    r"\b(?:chatcmpl|cmpl|lc_run-)-[\w-]+"
    r"|\b(?:resp|msg|req)_[\w-]+"
    r"|\b(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{32}\b"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)


@dataclass
class Outcome:
    """The results of one program by feature, from the engine and through each frontend, and the bodies it sent."""

    direct: dict[str, Any]
    through: list[dict[str, Any]]
    direct_bodies: list[dict[str, Any]]
    through_bodies: list[dict[str, Any]]


def outcome(command: Sequence[str], replay: Replay, urls: Sequence[str], **environment: str) -> Outcome:
    """Run a program against the replay server and the frontends at `urls`."""
    before = len(replay.calls)
    run = subprocess.run(
        [*command, replay.url, replay.url, *urls],
        cwd=ROOT,
        env=_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found: dict[str, dict[str, Any]] = {url: {} for url in (replay.url, *urls)}
    for line in run.stdout.splitlines():
        printed = json.loads(line)
        found[printed["url"]][printed["feature"]] = settled(printed["result"], printed["url"])
    calls = replay.calls[before:]
    direct, *through = found.values()
    return Outcome(
        direct,
        through,
        [_body(call) for call in calls if "x-request-id" not in call.headers],
        [_body(call) for call in calls if "x-request-id" in call.headers],
    )


def _environment() -> dict[str, str]:
    """Return this process's environment, without proxies, and so that no library calls home."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false"}


def settled(result: Any, url: str = "") -> Any:
    """Return a result without nulls, times and the server's URL, with its ids numbered in the order they come in."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"id {len(numbers)}")

    def settle(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {name: inner for name, inner in value.items() if inner is not None and name not in _TIMES}
            if kept.get("content") == "" and any(kept.get(name) for name in _BESIDE_CONTENT):
                del kept["content"]  # engines send it or not
            return {name: settle(kept[name]) for name in sorted(kept)}
        if isinstance(value, list):
            return [settle(inner) for inner in value]
        if isinstance(value, str):
            return _ID.sub(number, value.replace(url, "URL") if url else value)
        return value

    return settle(result)


def _body(call: Exchange) -> dict[str, Any]:
    body = {name: value for name, value in call.body.items() if name not in _SET_BY_THE_WORKER}
    settled_body: dict[str, Any] = settled(body)
    return settled_body

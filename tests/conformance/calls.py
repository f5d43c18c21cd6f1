"""Calls and checks that the tests of this folder share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from lifecycle.store.connect import open_store
from tests.cluster import Cluster, Process
from tests.sse import chat
from tests.waiting import wait_until

T = TypeVar("T")
MAX_BODY_BYTES = 64 * 1024
TERMINAL = ("completed", "failed", "cancelled")
RECORD_FIELDS = {
    "id",
    "object",
    "model",
    "endpoint",
    "request_type",
    "status",
    "error_type",
    "error_message",
    "cancel_requested_at",
    "cancel_reason",
    "cancel_mode",
    "on_disconnect",
    "frontend",
    "worker",
    "attempt",
    "created_at",
    "started_at",
    "first_token_at",
    "last_token_at",
    "finished_at",
    "output_tokens",
    "usage",
    "output_events",
    "priority",
    "preemptions",
    "parent",
    "labels",
    "finish_reason",
    "owner",
    "cancelled_by",
    "cancelled_via",
}


def endless(model: str = "echo", **fields: Any) -> dict[str, Any]:
    """Generates until it is ended."""
    return chat("again", model, echo_repeat=1_000_000_000, **fields)


def journaled(journal: Path, **fields: Any) -> dict[str, Any]:
    """Endless on the one slot of `single`; the engine's starts and stops are in the journal."""
    return chat(str(journal), "single", **fields)


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def refusal(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of a call that was refused: OpenAI's body, and an id on the response."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "code", "param"} <= error.keys()
    assert error["message"]
    assert isinstance(error["type"], str)
    return error


def lists(answer: httpx2.Response) -> list[str]:
    """The ids of a listing."""
    assert answer.status_code == 200, answer.text
    return [record["id"] for record in answer.json()["data"]]


async def send(cluster: Cluster, body: Any, frontend: Process | None = None, **headers: str) -> httpx2.Response:
    """A call that is answered as a whole. A body that is no dict goes out as it is."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body) if isinstance(body, dict) else body
    url = (frontend or cluster.frontends[0]).url + "/v1/chat/completions"
    return await cluster.http.post(url, content=content, headers=names)


async def cancel(
    cluster: Cluster, rid: str, frontend: Process | None = None, wait_ms: int = 10_000, **fields: Any
) -> httpx2.Response:
    url = f"{(frontend or cluster.frontends[0]).url}/v1/requests/{rid}/cancel"
    return await cluster.http.post(url, json={"wait_ms": wait_ms, **fields})


async def until(cluster: Cluster, rid: str, *statuses: str, frontend: Process | None = None) -> dict[str, Any]:
    """The record, once it has one of these statuses; waits for its creation, too."""
    url = f"{(frontend or cluster.frontends[0]).url}/v1/requests/{rid}"

    async def look() -> dict[str, Any] | None:
        answer = await cluster.http.get(url)
        record: dict[str, Any] = answer.json()
        return record if answer.status_code == 200 and record["status"] in statuses else None

    found: dict[str, Any] = await wait_until(look, what=f"{rid} being {' or '.join(statuses)}")
    return found


async def ended(cluster: Cluster, rid: str, frontend: Process | None = None) -> dict[str, Any]:
    return await until(cluster, rid, *TERMINAL, frontend=frontend)


async def settles_to(expected: T, look: Callable[[], Awaitable[T]]) -> None:
    """Wait until `look` returns `expected`. Fails with the difference."""
    seen = await look()

    async def settled() -> bool:
        nonlocal seen
        seen = await look()
        return seen == expected

    with suppress(AssertionError):
        await wait_until(settled)
    assert seen == expected, f"it stays {seen!r}"


@asynccontextmanager
async def extra_worker(cluster: Cluster, model: str, engine: str = "echo", **settings: Any) -> AsyncIterator[Process]:
    """Run a worker of the test's own, for tests that the shared workers cannot serve."""
    worker = await cluster.worker(model, engine, **settings)
    try:
        yield worker
    finally:
        await worker.terminate()


@asynccontextmanager
async def extra_frontend(cluster: Cluster, **settings: Any) -> AsyncIterator[Process]:
    """Run a frontend of the test's own, which may have limits or drain."""
    frontend = await cluster.frontend(**settings)
    try:
        yield frontend
    finally:
        await frontend.terminate()


async def expire(cluster: Cluster, rid: str) -> None:
    """Let the retention of an ended request be over now."""
    async with open_store(cluster.settings) as store:
        prefix = store.keys.prefix_of(rid)
        await store.commands.execute_many(
            [
                ("PEXPIRE", f"{prefix}request:{rid}", 1),
                ("PEXPIRE", f"{prefix}tokens:{rid}", 1),
                ("ZADD", f"{prefix}expiries", 0, rid),
            ]
        )

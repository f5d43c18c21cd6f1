"""Each limit of what waits, of an owner and of a model, at a real frontend; and a flood delays only its owner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lifecycle.queue_share import QueueShare
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.admitting import admit
from tests.conftest import MakeSettings, connect
from tests.joining import join
from tests.leaks import clear
from tests.queue_scene import MODEL, keys_of, open_scene

GIVEN: dict[str, Any] = {"concurrency": 1, "heartbeat_secs": 0.5, "lease_secs": 60.0}
FLOOD = 10_000
OWNER, OF_MODEL = (429, "queue_limit"), (503, "queue_full")


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize(
    ("settings", "share", "refused"),
    [
        ({"queue_limit": 2}, QueueShare(), OF_MODEL),
        ({}, QueueShare(requests=2), OWNER),
        ({"owner_queue_tokens": 650}, QueueShare(), OWNER),
        ({}, QueueShare(tokens=650), OWNER),
        ({"owner_queue_bytes": 1000}, QueueShare(), OWNER),
        ({}, QueueShare(body_bytes=1000), OWNER),
        ({"model_queue_limit": 2}, QueueShare(), OF_MODEL),
        ({"model_queue_tokens": 650}, QueueShare(), OF_MODEL),
        ({"model_queue_bytes": 1000}, QueueShare(), OF_MODEL),
    ],
)
async def test_the_third_request_is_refused(
    make_settings: MakeSettings,
    tmp_path: Path,
    settings: dict[str, int],
    share: QueueShare,
    refused: tuple[int, str],
    shards: int,
) -> None:
    """Two of about 400 bytes and 300 tokens may wait, and a third may not, unless it is of an owner with room left."""
    given = make_settings(api_keys=str(tmp_path / "keys"), shards=shards, **GIVEN | settings)
    async with open_scene(given, tmp_path, keys_of(limited=share)) as scene:
        fields: dict[str, Any] = {"max_tokens": 200, "user": "u" * 200}
        await scene.wait("globex", "running", "running", **fields)
        for rid in ("first", "second"):
            await scene.wait("limited", rid, **fields)
        answer = await scene.send("limited", **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == refused
        assert int(answer.headers["retry-after"]) >= 1
        if "queue_limit" not in settings and refused == OF_MODEL:
            answer = await scene.send("globex", **fields)
            assert (answer.status_code, answer.json()["error"]["code"]) == refused
        else:
            await scene.wait("globex", "other", **fields)
        assert {answer.status_code for answer in await scene.release()} == {200}
        assert (await scene.send("limited", **fields)).status_code == 200  # nothing of it is counted any more


@pytest.mark.leaves_inflight
async def test_a_flood_delays_the_request_of_another_owner_by_one_slot(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    """The slot that comes free next is the other owner's, although ten thousand requests came before."""
    given = make_settings(api_keys=str(tmp_path / "keys"), **GIVEN)
    store = Store(connect(given), given)
    async with open_scene(given, tmp_path, keys_of()) as scene:
        await scene.wait("globex", "running", "running")
        await join(store, "f0", Role.FRONTEND, {}, [])
        body = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % str(scene.gate).encode()
        more: dict[str, Any] = {"owner": "globex", "body": body, "on_disconnect": "continue", "prompt_tokens": 20}
        for first in range(0, FLOOD, 100):
            await asyncio.gather(*(admit(store, f"flood-{n}", **more) for n in range(first, first + 100)))
        assert await store.queue_length(MODEL) == FLOOD
        await scene.wait("acme", "single")
        assert (await scene.record("single"))["queue_position"] == 1
        await scene.release()
        single, first_of_flood = await scene.record("single"), await store.read("flood-0")
        assert first_of_flood is not None
        assert single["status"] == "completed"
        assert single["started_at"] < (first_of_flood.started_at or float("inf"))
    await clear(store.commands, given.namespace)  # the flood would take minutes to look through
    await store.commands.aclose()

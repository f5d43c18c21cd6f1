"""The limit of a queue that lies in several shards."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.queue_limit import QueueLimit
from lifecycle.types import Limits, OnDisconnect, Role
from tests.admitting import CHAT, admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join

SHARDS = 8
REQUEST = AdmissionRequest("r", CHAT, b"{}", OnDisconnect.CANCEL, 0.0, Limits())


@pytest.mark.leaves_inflight
async def test_the_limit_holds_for_all_shards_together(make_settings: MakeSettings, make_store: MakeStore) -> None:
    store = make_store(make_settings(shards=SHARDS, queue_limit=3))
    await join(store, "f0", Role.FRONTEND, {}, [])
    limit = QueueLimit(store)
    full = []
    for number in range(4):
        full.append(await limit.refusal(REQUEST))
        if full[-1]:
            break
        await admit(store, f"r{number}")
    assert full == [None, None, None, "full"]
    assert len({store.keys.shard_of(f"r{number}") for number in range(3)}) > 1


async def test_one_shard_asks_nothing(make_settings: MakeSettings, make_store: MakeStore) -> None:
    """There the admitting script itself compares, and no command is spent."""
    store = make_store(make_settings(queue_limit=1))
    await store.commands.aclose()
    assert await QueueLimit(store).refusal(REQUEST) is None


async def test_flows_beyond_those_that_are_remembered_fail_no_admission(
    make_settings: MakeSettings, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle.tracking.queue_limit._FLOWS", 1)
    store = make_store(make_settings(shards=SHARDS, model_queue_limit=100))
    limit = QueueLimit(store)
    requests = [REQUEST._replace(owner=f"o{number}") for number in range(4)]
    assert await asyncio.gather(*map(limit.refusal, requests)) == [None] * 4

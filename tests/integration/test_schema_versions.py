"""Two releases in one namespace: the schema before this one, as its `heartbeat` script was, beside the present one.

`tests/recorded/schema_<n>` has that script with its includes. Raising the schema version needs the one before there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from lifecycle.errors import ConfigurationConflict
from lifecycle.store import common_settings
from lifecycle.store.control_slot import SCHEMA_VERSION
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join, leave

BEFORE = str(int(SCHEMA_VERSION) - 1)
RECORDED = Path(__file__).parents[1] / "recorded" / f"schema_{BEFORE}" / "heartbeat.lua"


async def old_heartbeat(store: Store) -> list[Any]:
    """Let a replica of the schema before join, and return the script's reply."""
    config = orjson.dumps(common_settings.as_texts(store.settings) | {"version": BEFORE})
    reply: list[Any] = await store.command(
        "EVAL",
        RECORDED.read_text(),
        *(1, store.keys.control, 0, "frontend-old", "frontend", store.settings.lease_secs),
        *("{}", "{}", "[]", config, "", 0, ""),
    )
    return reply


async def test_a_new_replica_refuses_to_join_old_ones_and_says_what_to_do(store: Store) -> None:
    assert (await old_heartbeat(store))[0] == b"ok"
    for role in Role:
        with pytest.raises(ConfigurationConflict) as refused:
            await store.heartbeat(f"{role}-new", role, {}, [])
        message = str(refused.value)
        assert f"version {SCHEMA_VERSION}" in message
        assert f"version {BEFORE}" in message
        assert "LIFECYCLE_NAMESPACE" in message
        assert "\n" not in message
    assert (await store.command("ZRANGE", store.keys.control + "frontends", 0, -1)) == [b"frontend-old"]
    assert not await store.command("EXISTS", store.keys.control + "workers")


async def test_a_new_replica_does_not_take_over_what_old_ones_have_left(store: Store) -> None:
    await old_heartbeat(store)
    await store.command("ZREM", store.keys.control + "frontends", "frontend-old")
    with pytest.raises(ConfigurationConflict, match="LIFECYCLE_NAMESPACE"):
        await store.heartbeat("frontend-new", Role.FRONTEND, {}, [])


async def test_an_old_replica_is_refused_by_new_ones(store: Store) -> None:
    await join(store, "frontend-new", Role.FRONTEND)
    reply = await old_heartbeat(store)
    assert reply[0] == b"conflict"
    assert set(reply[1:]) & {b"version", b"queue_bytes"}, "whichever of the differing settings it finds first"
    await leave(store, "frontend-new", Role.FRONTEND)

"""The secret that all frontends share is read seldom, and again after Redis has lost it."""

from __future__ import annotations

import pytest

from lifecycle.store.transitions import Store
from lifecycle.tracking.idempotency import Idempotency
from tests.conftest import MakeSettings, MakeStore


@pytest.fixture
def store(make_store: MakeStore, make_settings: MakeSettings) -> Store:
    return make_store(make_settings(heartbeat_secs=60.0, lease_secs=240.0))


@pytest.fixture
def reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scripts that the store runs."""
    names: list[str] = []
    run = store.run

    async def noted(name: str, *args: object, retry_for_secs: float = 0.0) -> object:
        names.append(name)
        return await run(name, *args, retry_for_secs=retry_for_secs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "run", noted)
    return names


async def test_calls_with_idempotency_keys_read_it_once_a_heartbeat(store: Store, reads: list[str]) -> None:
    names = [await Idempotency.of(f"key-{number}", "completions", b"{}").name(store, "c-", None) for number in range(3)]
    assert len(set(names)) == 3
    assert reads == ["secret"]
    store.settings = store.settings.model_copy(update={"heartbeat_secs": 0.0})
    await Idempotency.of("key-4", "completions", b"{}").name(store, "c-", None)
    assert reads == ["secret", "secret"]


async def test_one_that_was_lost_is_read_again(store: Store, make_store: MakeStore) -> None:
    lost = await store.read_secret()
    await store.command("DEL", store.keys.control + "secret")
    new = await make_store(store.settings).read_secret()
    assert new != lost
    assert await store.read_secret(max_age_secs=60.0) == lost
    assert await store.read_secret() == new
    assert await store.read_secret(max_age_secs=60.0) == new

"""Test an application that uses the tracker: a pytest plugin, which is active where lifecycle is installed.

The fixture `lifecycle_tracker` is a connected `Tracker`: all tests of a session share one private Redis, and each has a
namespace of its own. It is an asynchronous fixture of pytest-asyncio, or of AnyIO's plugin where that is not installed.
Further replicas connect with its `settings.redis_url` and `settings.namespace`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from lifecycle.application.tracker import Tracker
    from lifecycle.types import RequestRecord

__all__ = ["lifecycle_redis_url", "lifecycle_tracker", "wait_for_status"]

_FixtureFunction = TypeVar("_FixtureFunction", bound=Callable[..., Any])
_QUICK: dict[str, Any] = {"heartbeat_secs": 0.5, "lease_secs": 3.0, "sweep_secs": 0.5}  # short enough to wait for
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.002, 0.05


def _async_fixture(function: _FixtureFunction) -> _FixtureFunction:
    owner: Any = importlib.import_module("pytest_asyncio") if importlib.util.find_spec("pytest_asyncio") else pytest
    made: _FixtureFunction = owner.fixture(function)
    return made


@pytest.fixture(scope="session")
def lifecycle_redis_url() -> Iterator[str]:
    """Start a private Redis for the tests of this session, and return its URL.

    It is a `valkey-server` or `redis-server` from PATH, else the one that is installed with lifecycle.
    """
    from lifecycle.local.embedded_redis import EmbeddedRedis

    with EmbeddedRedis() as server:
        yield server.url


@_async_fixture
async def lifecycle_tracker(lifecycle_redis_url: str) -> AsyncIterator[Tracker]:
    """Connect a tracker to a namespace that no other test uses."""
    from lifecycle.application.tracker import Tracker

    namespace = f"test-{secrets.token_hex(6)}"
    async with Tracker.connect(redis_url=lifecycle_redis_url, namespace=namespace, **_QUICK) as tracker:
        yield tracker


async def wait_for_status(tracker: Tracker, id: str, status: str, timeout_secs: float = 10.0) -> RequestRecord:
    """Wait until a request has this status, and return its record.

    Raises TimeoutError, which says what the status is instead, after `timeout_secs`; NotFound when the request is
    unknown.
    """
    clock, pause = asyncio.get_running_loop().time, _FIRST_PAUSE_SECS
    give_up_at = clock() + timeout_secs
    while True:
        record = await tracker.get(id)
        if record.status == status:
            return record
        if clock() > give_up_at:
            raise TimeoutError(f"the request {id!r} is {record.status.value} after {timeout_secs:g} s, not {status}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECS)

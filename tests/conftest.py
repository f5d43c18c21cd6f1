"""A server for the tests that need one, a namespace for each test, and a check of what each has left behind.

`LIFECYCLE_REDIS_URL` names the server; without it the tests bring their own. All share it: a test sees nothing but its
namespace. Tests that stop, freeze or fill a server start one themselves
(`lifecycle.local.embedded_redis.EmbeddedRedis`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from lifecycle.local.embedded_redis import open_redis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.redis import Commands, make_client
from lifecycle.store.transitions import Store
from tests import certificate_store, processes
from tests.chaos import faults
from tests.distribution import Distribution, place_of
from tests.leaks import clear, leaks
from tests.waiting import wait_until
from worker import departure

# A worker that a test runs in this process may end, and this process goes on.
departure._PROCESS_SECS = 86_400.0

certificate_store.share()

pytest.register_assert_rewrite("tests.machine")  # its assertions are to show what differs

T = TypeVar("T")
_LEAVES_INFLIGHT = "leaves_inflight: the test leaves requests unended on purpose"
_FAST_TIER = Path(__file__).parent / "unit"
_session_children: set[int] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-table", metavar="PATH", help="write what tests/chaos has measured into the table of this file"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _LEAVES_INFLIGHT)
    config.addinivalue_line("markers", faults.MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order, and mark as slow those that need a server."""
    items.sort(key=place_of)
    for item in items:
        if not item.path.is_relative_to(_FAST_TIER) or "redis_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Distribution | None:
    return Distribution(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--faults-table")
    if path:
        faults.write(Path(path))


class MakeSettings(Protocol):
    def __call__(self, **overrides: Any) -> Settings: ...


class MakeStore(Protocol):
    def __call__(self, chosen: Settings | None = None, *, clock_shift_secs: float = 0.0) -> Store: ...


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The server of this test run. Do not flush or stop it."""
    with ExitStack() as stack:
        before = set(processes.children())
        url = stack.enter_context(open_redis(os.environ.get("LIFECYCLE_REDIS_URL") or None))
        _session_children.update(set(processes.children()) - before)
        yield url


@pytest.fixture
def namespace() -> str:
    """Unique for each test."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def make_settings(redis_url: str, namespace: str) -> MakeSettings:
    """Settings for this test's server and namespace, with leases short enough to wait for."""

    def make(**overrides: Any) -> Settings:
        quick = {"heartbeat_secs": 0.25, "lease_secs": 1.0, "sweep_secs": 0.25, "headers_after_secs": 0.0}
        return Settings(**{"redis_url": redis_url, "namespace": namespace, **quick, **overrides})

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
async def make_store(settings: Settings) -> AsyncIterator[MakeStore]:
    """Stores over connections of their own; closed after the test."""
    made: list[Store] = []

    def make(chosen: Settings | None = None, *, clock_shift_secs: float = 0.0) -> Store:
        chosen = chosen or settings
        store = Store(connect(chosen), chosen, clock_shift_secs=clock_shift_secs)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.commands.aclose()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


def connect(settings: Settings) -> Commands:
    return Commands(make_client(settings.redis_url, socket_timeout_secs=settings.redis_timeout_secs))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that run in the test's own process set it up for theirs."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After everything else of the test has been torn down: no process, no key and no task is left over."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("_no_task_left")
    uses_redis = {"redis_url", "namespace"} <= set(request.fixturenames) or _has_real_world(request.node)
    url, namespace = (request.getfixturevalue(f) if uses_redis else "" for f in ("redis_url", "namespace"))
    before = set(processes.children())
    yield
    left = processes.left_over(before | _session_children)
    processes.end(left)
    assert not left, f"processes left over: {left}"
    if uses_redis:
        inflight_allowed = request.node.get_closest_marker("leaves_inflight") is not None
        found = _aside(inspect_and_clear(url, namespace, inflight_allowed))
        assert not found, "left in Redis:\n  " + "\n  ".join(found)


def _has_real_world(item: pytest.Item) -> bool:
    """Return whether the test runs in tests/unit's `world` on a real server, which asks for it only then."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("world") == "real"


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield

    def others() -> set[str]:
        return {repr(task) for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}

    try:
        await wait_until(lambda: not others(), timeout=2.0)
    except AssertionError:
        pytest.fail(f"tasks left over: {others()}")


def _aside(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a loop of its own, without touching the one the test has used."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def inspect_and_clear(url: str, namespace: str, inflight_allowed: bool) -> list[str]:
    async with open_store(Settings(redis_url=url, namespace=namespace, redis_timeout_secs=10.0)) as store:
        found = await leaks(store.commands, namespace, inflight_allowed=inflight_allowed)
        await clear(store.commands, namespace)
        return found

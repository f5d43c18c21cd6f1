"""Each client library gets through two frontends and a worker what it gets from the engine itself."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lifecycle.settings import Settings
from tests.clients.features import CLIENTS, DIFFERENT, FEATURES, Client
from tests.clients.outcomes import Outcome, outcome
from tests.clients.replay import Replay, replaying
from tests.cluster import Cluster, running
from tests.shared_cluster import shared_cluster

pytestmark = [pytest.mark.slow, pytest.mark.clients, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with replaying(Replay()) as replay:
        yield replay


@pytest.fixture(scope="module")
def shared(replay: Replay, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"clients-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        openai_base_url=replay.url,
        headers_after_secs=5.0,
    )
    with shared_cluster(_with_the_models(settings, tmp_path_factory.mktemp("clients"))) as cluster:
        yield cluster


@asynccontextmanager
async def _with_the_models(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker([], "openai")  # it serves the models that the engine lists
        yield cluster


class Outcomes:
    """Run each program once, when the first test asks for it."""

    def __init__(self, replay: Replay, cluster: Cluster) -> None:
        self._replay = replay
        self._urls = [frontend.url for frontend in cluster.frontends]
        self._found: dict[Client, Outcome] = {}

    def of(self, client: Client) -> Outcome:
        if client not in self._found:
            self._found[client] = outcome(client.command, self._replay, self._urls)
        return self._found[client]


@pytest.fixture(scope="module")
def outcomes(replay: Replay, shared: Cluster) -> Outcomes:
    return Outcomes(replay, shared)


@pytest.fixture(params=CLIENTS, ids=lambda client: client.program)
def client(request: pytest.FixtureRequest) -> Client:
    """A client library that is installed here."""
    client: Client = request.param
    if reason := client.what_is_missing():
        pytest.skip(reason)
    return client


@pytest.fixture
def found(outcomes: Outcomes, client: Client) -> Outcome:
    return outcomes.of(client)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_is_as_the_table_says(client: Client, found: Outcome, feature: str) -> None:
    if feature in client.missing:
        assert feature not in found.direct
        return
    direct = found.direct[feature]
    assert not (isinstance(direct, dict) and "failed" in direct), direct
    for through in found.through:
        if feature in DIFFERENT:
            assert through[feature] != direct
            assert not (isinstance(through[feature], dict) and "failed" in through[feature]), through[feature]
        else:
            assert through[feature] == direct


def test_the_program_has_no_other_features(client: Client, found: Outcome) -> None:
    assert found.direct.keys() == set(FEATURES) - client.missing


def test_the_engine_gets_the_same_calls(client: Client, found: Outcome) -> None:
    """The bodies are the same, and no call is repeated: not even one that the engine refuses."""
    calls = len(found.direct_bodies)
    assert found.through_bodies[:calls] == found.direct_bodies
    assert found.through_bodies[calls:] == found.direct_bodies


def test_a_call_that_cannot_succeed_is_sent_once(client: Client, found: Outcome) -> None:
    sent = [body for body in found.through_bodies if body["model"] == "context_overflow"]
    assert len(sent) == len(found.through) * len(found.direct["context overflow"])


def test_an_aborted_answer_is_left_by_everybody(client: Client, found: Outcome) -> None:
    """The connection to the engine is closed, which is how engines learn that they may stop."""
    for got in (found.direct, *found.through):
        text, is_left = got["abort"]
        assert text.startswith("The")
        assert is_left

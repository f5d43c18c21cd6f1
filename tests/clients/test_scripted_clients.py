"""Clients of the Responses and Messages APIs get through the cluster what they get from an engine with these APIs.

Where an upstream serves them too, all fields are the same. Where it serves only chat completions, the worker
translates, and what a program calls `plain` is the same.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.clients.features import MESSAGES_CLIENTS, RESPONSES_CLIENTS, TRACKERS_OWN, Client
from tests.clients.outcomes import Outcome, outcome
from tests.clients.replay import replaying
from tests.clients.scripted import CHAT_PREFIX
from tests.clients.scripted_replay import ScriptedReplay, chat_only, in_front_of, native
from tests.cluster import Cluster
from tests.shared_cluster import shared_cluster

pytestmark = [pytest.mark.slow, pytest.mark.clients, pytest.mark.timeout(240)]

_CLIENTS = (*RESPONSES_CLIENTS, *MESSAGES_CLIENTS)
_CASES = [(client, feature) for client in _CLIENTS for feature in client.features if feature not in client.missing]
_OF_THE_TRACKER = ("background", "store", "previous_response_id")  # what it does not send on


class Upstreams:
    """The cluster, in front of an upstream that serves the APIs itself and one that serves chat completions."""

    def __init__(self, engine: ScriptedReplay, cluster: Cluster) -> None:
        self._engine = engine
        self._urls = [frontend.url for frontend in cluster.frontends]
        self._found: dict[tuple[Client, str], Outcome] = {}

    def outcome(self, client: Client, prefix: str) -> Outcome:
        """Return what a program gets for the models with a prefix. It runs once."""
        if reason := client.what_is_missing():
            pytest.skip(reason)
        if (client, prefix) not in self._found:
            found = outcome(client.command, self._engine, self._urls, MODEL_PREFIX=prefix)
            self._found[client, prefix] = found
        return self._found[client, prefix]


@pytest.fixture(scope="module")
def upstreams(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"scripted-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        headers_after_secs=5.0,
    )
    directory = tmp_path_factory.mktemp("scripted")
    with (
        replaying(native()) as engine,
        replaying(chat_only()) as chat,
        shared_cluster(in_front_of(engine, chat, settings, directory)) as cluster,
    ):
        engine.beside.append(chat)
        yield Upstreams(engine, cluster)


@pytest.mark.parametrize(("client", "feature"), _CASES, ids=lambda value: getattr(value, "program", value))
def test_an_upstream_with_the_api_is_passed_through(upstreams: Upstreams, client: Client, feature: str) -> None:
    found = upstreams.outcome(client, "")
    _succeeded(found.direct[feature])
    for through in found.through:
        if feature in TRACKERS_OWN:
            assert through[feature] == {"plain": TRACKERS_OWN[feature]}
        else:
            assert through[feature] == found.direct[feature]


@pytest.mark.parametrize(("client", "feature"), _CASES, ids=lambda value: getattr(value, "program", value))
def test_an_upstream_with_chat_is_translated(upstreams: Upstreams, client: Client, feature: str) -> None:
    found = upstreams.outcome(client, CHAT_PREFIX)
    for through in found.through:
        _succeeded(through[feature])
        expected = TRACKERS_OWN[feature] if feature in TRACKERS_OWN else _plain(found.direct[feature])
        assert _plain(through[feature]) == expected


@pytest.mark.parametrize("client", _CLIENTS, ids=lambda client: client.program)
def test_the_program_has_no_other_features(upstreams: Upstreams, client: Client) -> None:
    assert upstreams.outcome(client, "").direct.keys() == set(client.features) - client.missing


@pytest.mark.parametrize("client", _CLIENTS, ids=lambda client: client.program)
def test_the_engine_gets_the_same_calls(upstreams: Upstreams, client: Client) -> None:
    # Instead of a reference to an item of a stored response the engine gets the item.
    found = upstreams.outcome(client, "")
    bodies = [_sent_on(body) for body in found.through_bodies]
    expected = [_sent_on(body) for body in found.direct_bodies]
    compared = [number for number, body in enumerate(expected) if "item_reference" not in json.dumps(body)]
    assert [bodies[number] for number in compared] == [expected[number] for number in compared]


def _succeeded(result: Any) -> None:
    assert not (isinstance(result, dict) and "failed" in result), result


def _plain(result: Any) -> Any:
    if isinstance(result, list):
        return [_plain(one) for one in result]
    return result["plain"]


def _sent_on(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _OF_THE_TRACKER}

"""A path or method that does not exist is answered alike with and without keys, and a slash too many is explained."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import MakeSettings
from tests.edge import EdgeServer, edge_server
from tests.keys import Keys
from tests.sse import chat

CALL = "/v1/chat/completions"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.make(tmp_path)


@pytest.fixture(params=["", "nobody", "acme", "ops"])
def caller(request: pytest.FixtureRequest) -> str:
    """The name of a key, nobody's, or '' for a frontend that has no keys."""
    name: str = request.param
    return name


@pytest.fixture
async def edge(make_settings: MakeSettings, keys: Keys, caller: str) -> AsyncIterator[EdgeServer]:
    settings = make_settings(api_keys=str(keys.file)) if caller else make_settings()
    async with edge_server(settings) as started:
        if caller in keys.of:
            started.http.headers.update(keys.bearer(caller))
        yield started


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    assert "location" not in answer.headers
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    return error


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/nowhere", "/v1/no-such-path", "/v1/requests/a/b", "/v1"])
async def test_an_unknown_path_is_404_for_everybody(edge: EdgeServer, method: str, path: str) -> None:
    answer = await edge.http.request(method, path)
    assert (answer.status_code, error_of(answer)["message"]) == (404, f"{method} {path}: Not Found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CALL), ("PUT", "/v1/requests/a"), ("POST", "/live"), ("OPTIONS", "/metrics")]
)
async def test_a_wrong_method_is_405_for_everybody(edge: EdgeServer, method: str, path: str) -> None:
    answer = await edge.http.request(method, path)
    assert (answer.status_code, error_of(answer)["message"]) == (405, f"{method} {path}: Method Not Allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1//chat/completions", "//live", f"{CALL}//"])
async def test_a_slash_too_many_is_404_and_named(edge: EdgeServer, path: str) -> None:
    url = f"http://127.0.0.1:{edge.port}{path}"  # not a path: a client would read it as a host
    answer = await edge.http.post(url, json=chat("hi", "nobody"))
    message = error_of(answer)["message"]
    assert answer.status_code == 404
    assert "//" in message
    assert "base URL" in message


@pytest.mark.parametrize(("method", "path"), [("POST", CALL), ("GET", "/v1/models"), ("GET", "/live"), ("GET", "/v1")])
async def test_a_slash_at_the_end_changes_nothing(edge: EdgeServer, method: str, path: str) -> None:
    plain, slashed = [await edge.http.request(method, path + end, json=chat("hi", "nobody")) for end in ("", "/")]
    assert "location" not in slashed.headers
    assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content)

"""Pages of the origins in LIFECYCLE_CORS_ORIGINS may call a frontend and read its answers, and no others may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import pytest

from lifecycle.settings import SettingsError, load
from tests.conftest import MakeSettings
from tests.edge import EdgeServer, edge_server
from tests.keys import Keys

ORIGIN = "https://app.example"
CALL = "/v1/chat/completions"
SENT = ("authorization", "content-type", "x-request-id", "last-event-id", "x-on-disconnect", "x-api-key")
OF_SDKS = ("anthropic-version", "x-stainless-os")

Serve = Callable[[str], AbstractAsyncContextManager[EdgeServer]]


@pytest.fixture(params=["without keys", "with keys"])
def serve(request: pytest.FixtureRequest, make_settings: MakeSettings, tmp_path: Path) -> Serve:
    """Start a frontend for which these origins are set."""
    keys = {"api_keys": str(Keys.make(tmp_path).file)} if request.param == "with keys" else {}
    return lambda origins: edge_server(make_settings(cors_origins=origins, **keys))


async def preflight(http: httpx2.AsyncClient, origin: str, path: str = CALL) -> httpx2.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join((*SENT, *OF_SDKS))}
    return await http.options(path, headers={"Origin": origin} | asked)


def names(answer: httpx2.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


@pytest.mark.parametrize("path", [CALL, "/v1/requests/x", "/metrics", "/nowhere"])
async def test_the_preflight_of_an_allowed_origin_needs_no_key(serve: Serve, path: str) -> None:
    async with serve(f"https://other.example, {ORIGIN}") as edge:
        answer = await preflight(edge.http, ORIGIN, path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "Origin"
    assert {"get", "head", "post", "delete"} <= names(answer, "access-control-allow-methods")
    assert {*SENT, *OF_SDKS} <= names(answer, "access-control-allow-headers")
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origins", ["", ORIGIN])
@pytest.mark.parametrize("origin", ["https://evil.example", ORIGIN + ":444", "http://app.example", "null"])
async def test_another_origin_is_refused_without_a_question_of_keys(serve: Serve, origins: str, origin: str) -> None:
    async with serve(origins) as edge:
        answer = await preflight(edge.http, origin)
        assert answer.status_code in (403, 405)
        assert answer.json()["error"]["message"]
        other = await edge.http.get("/live", headers={"Origin": origin})
    assert other.status_code == 200
    for response in (answer, other):
        assert "access-control-allow-origin" not in response.headers


async def test_every_answer_can_be_read_errors_and_streams_too(serve: Serve) -> None:
    async with serve(ORIGIN) as edge:
        calls = [
            await edge.http.get(path, headers={"Origin": ORIGIN, **more})
            for path, more in (
                ("/live", {}),
                ("/nowhere", {}),
                ("/v1/requests/unknown", {}),
                ("/v1/models", {"X-Request-Id": "not an id"}),
            )
        ]
        calls.append(await edge.http.post(CALL, content="{", headers={"Origin": ORIGIN}))
        if edge.tracker.settings.api_keys == "":
            async with edge.http.stream("GET", "/v1/overview", headers={"Origin": ORIGIN}) as stream:
                calls.append(stream)
    for answer in calls:
        assert answer.headers["access-control-allow-origin"] == ORIGIN, answer
        assert {"x-request-id", "retry-after"} <= names(answer, "access-control-expose-headers")


async def test_a_star_allows_every_origin(serve: Serve) -> None:
    async with serve("*") as edge:
        asked = await preflight(edge.http, "https://any.example")
        answer = await edge.http.post(CALL, content="{", headers={"Origin": "https://any.example"})
    assert asked.status_code == 204
    assert answer.status_code in (400, 401)
    assert [a.headers["access-control-allow-origin"] for a in (asked, answer)] == ["*", "*"]


@pytest.mark.parametrize("wrong", ["app.example", "https://app.example/", "https://a.example/path", "https://", "* x"])
def test_what_is_no_origin_is_a_wrong_setting(wrong: str) -> None:
    with pytest.raises(SettingsError, match="LIFECYCLE_CORS_ORIGINS"):
        load({"cors_origins": wrong})

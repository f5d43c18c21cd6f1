"""Without keys, no page of another site can call a frontend, and none can read it by a name that means this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.settings import SettingsError, load
from tests.conftest import MakeSettings
from tests.edge import EdgeServer, edge_server

CALL = "/v1/chat/completions"
OWN_HOSTS = ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8000")
FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "192.168.1.5",
    "0.0.0.0",
    "[::2]",
    "a:b",
)


@pytest.fixture
async def edge(make_settings: MakeSettings) -> AsyncIterator[EdgeServer]:
    async with edge_server(make_settings()) as started:
        yield started


async def statuses(edge: EdgeServer, **headers: str) -> list[int]:
    """Return how a GET, two POST and a DELETE with these headers are answered."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    calls = (("GET", "/live"), ("POST", CALL), ("POST", "/v1/requests/cancel"), ("DELETE", "/v1/requests/x"))
    return [(await edge.http.request(method, path, headers=sent)).status_code for method, path in calls]


SERVED = [200, 400, 400, 404]
FORBIDDEN = [200, 403, 403, 403]
MISDIRECTED = [421] * 4


@pytest.mark.parametrize("host", OWN_HOSTS)
async def test_the_names_of_this_machine_are_served(edge: EdgeServer, host: str) -> None:
    assert await statuses(edge, Host=host) == SERVED
    assert await statuses(edge, Host=host, Origin=f"http://{host}") == SERVED


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_foreign_host_is_refused(edge: EdgeServer, host: str) -> None:
    assert await statuses(edge, Host=host) == MISDIRECTED
    assert await statuses(edge, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin") == MISDIRECTED
    error = (await edge.http.get("/v1/requests", headers={"Host": host})).json()["error"]
    assert (error["code"], "LIFECYCLE_ALLOWED_HOSTS" in error["message"]) == ("host_not_allowed", True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site", "Host": "localhost:8000"},
        {"Origin": "null"},
        {"Origin": "http://[", "Host": "localhost"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_another_sites_page_changes_nothing(edge: EdgeServer, headers: dict[str, str]) -> None:
    assert await statuses(edge, **headers) == FORBIDDEN


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_what_the_user_does_is_served(edge: EdgeServer, site: str) -> None:
    assert await statuses(edge, Sec_Fetch_Site=site) == SERVED


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"allowed_hosts": "my.example, other"}, {"Host": "my.example:8000"}),
        ({"allowed_hosts": "my.example"}, {"Host": "my.example", "Origin": "https://my.example"}),
        ({"allowed_hosts": "my.example"}, {"Origin": "https://my.example"}),  # a proxy has replaced the Host
        ({"cors_origins": "https://app.example"}, {"Origin": "https://app.example", "Sec_Fetch_Site": "cross-site"}),
        ({"cors_origins": "null"}, {"Origin": "null"}),
        ({"cors_origins": "*"}, {"Origin": "https://app.example"}),
        ({"allow_anonymous": True}, {"Host": "evil.example", "Origin": "https://app.example"}),
    ],
)
async def test_the_settings_name_exceptions(
    make_settings: MakeSettings, settings: dict[str, Any], headers: dict[str, str]
) -> None:
    async with edge_server(make_settings(**settings)) as edge:
        assert await statuses(edge, **headers) == SERVED


@pytest.mark.parametrize("wrong", ["https://my.example", "my.example:80", "a/b", "*"])
def test_what_is_no_host_is_a_wrong_setting(wrong: str) -> None:
    with pytest.raises(SettingsError, match="LIFECYCLE_ALLOWED_HOSTS"):
        load({"allowed_hosts": wrong})

"""Which headers of a call reach the engine, by the setting LIFECYCLE_FORWARD_HEADERS."""

from __future__ import annotations

import pytest

from frontend.transport.call_headers import CallHeaders
from lifecycle.fastapi.errors import ApiError
from lifecycle.header_selection import NEVER_FORWARDED, HeaderSelection
from lifecycle.settings import Settings, SettingsError, load

CALL = {
    "host": "h",
    "authorization": "Bearer k",
    "content-type": "application/json",
    "x-request-id": "r",
    "x-session-id": "s1",
    "x-data-parallel-rank": "3",
    "x-vllm-lora": "l",
    "x-other": "o",
}


def test_the_default_selects_what_engines_route_by() -> None:
    selected = HeaderSelection.parse(Settings().forward_headers).select(CALL)
    assert selected == {"x-session-id": "s1", "x-data-parallel-rank": "3", "x-vllm-lora": "l"}


def test_names_and_prefixes_are_case_insensitive() -> None:
    assert HeaderSelection.parse("X-Other, X-VLLM-*").select(CALL) == {"x-other": "o", "x-vllm-lora": "l"}


@pytest.mark.parametrize("text", ["off", "OFF", "", " "])
def test_it_can_be_turned_off(text: str) -> None:
    settings = load({"forward_headers": text})
    assert settings.forward_headers.lower() == "off"
    assert CallHeaders.parse(CALL, settings).forwarded == b""


def test_credentials_and_control_headers_are_never_forwarded_although_they_are_named() -> None:
    call = dict.fromkeys([*NEVER_FORWARDED, "content-length", "content-encoding"], "v") | {"x-a": "1"}
    named = HeaderSelection.parse(", ".join(call))
    assert named.select(call) == {"x-a": "1"}
    assert set(named.refused) == call.keys() - {"x-a"}
    prefixes = HeaderSelection.parse("a*, c*, h*, i*, k*, l*, p*, s*, t*, u*, x-*, e*")
    assert prefixes.select(call) == {"x-a": "1"}
    assert prefixes.refused == ()


def test_a_header_of_the_connection_is_not_forwarded() -> None:
    assert HeaderSelection.parse("x-a, x-b").select({"connection": "close, X-A", "x-a": "1", "x-b": "2"}) == {
        "x-b": "2"
    }


@pytest.mark.parametrize(("text", "wrong"), [("x-a b", "x-a b"), ("x-*-y", "x-*-y"), ("x-a,,x-b", "''"), ("*", "*")])
def test_what_cannot_be_a_name_stops_the_start_with_one_line(text: str, wrong: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load({"forward_headers": text})
    message = str(raised.value)
    assert message.startswith("LIFECYCLE_FORWARD_HEADERS=")
    assert wrong in message
    assert "\n" not in message


def test_their_size_is_limited() -> None:
    fits = {"x-vllm-a": "v" * (8192 - len("x-vllm-a"))}
    assert CallHeaders.parse(fits, Settings()).forwarded
    with pytest.raises(ApiError, match=r"x-vllm-a, x-session-id.* 8193 bytes .*at most 8192") as raised:
        CallHeaders.parse({"x-vllm-a": "v" * 8172, "x-session-id": "s"}, Settings())
    assert raised.value.status == 431

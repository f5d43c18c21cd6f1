"""The headers of a call that starts a request: those that are not sent stand for the settings."""

from __future__ import annotations

import pytest

from frontend.transport.call_headers import CallHeaders
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import load

SETTINGS = load(
    {
        "on_disconnect": "continue",
        "disconnect_grace_secs": 3.0,
        "queue_timeout_secs": 5.0,
        "first_token_timeout_secs": 6.0,
        "deadline_secs": 7.0,
    }
)
OTHERS = {"content-type": "application/json", "x-session-id": "s", "x-unknown": "1"}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-on-disconnect", "continue"),
        ("x-disconnect-grace-secs", "3"),
        ("x-queue-timeout-secs", "5"),
        ("x-first-token-timeout-secs", "6"),
        ("x-deadline-secs", "7"),
        ("x-stainless-read-timeout", "600"),
        ("traceparent", "malformed"),
    ],
)
def test_a_header_that_repeats_a_setting_changes_nothing(header: str, value: str) -> None:
    """A call without any such header is read by itself, so both ways must come to the same."""
    without = CallHeaders.parse(OTHERS, SETTINGS)
    assert CallHeaders.parse({**OTHERS, header: value}, SETTINGS) == without
    assert without.forwarded == b'{"x-session-id":"s"}'


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-request-id", "mine"),
        ("idempotency-key", "key"),
        ("x-on-disconnect", "cancel"),
        ("x-disconnect-grace-secs", "1"),
        ("x-queue-timeout-secs", "1"),
        ("x-first-token-timeout-secs", "1"),
        ("x-deadline-secs", "1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-parent-request-id", "parent"),
    ],
)
def test_each_header_is_read(header: str, value: str) -> None:
    assert CallHeaders.parse({header: value}, SETTINGS) != CallHeaders.parse({}, SETTINGS)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "soon", "2592001", "1_0", "\xb2", "0x1"])
def test_a_limit_that_is_none_is_refused_with_its_range(value: str) -> None:
    with pytest.raises(ApiError) as refused:
        CallHeaders.parse({"x-deadline-secs": value}, SETTINGS)
    assert refused.value.message == (f"X-Deadline-Secs must be a number of seconds above 0 to 2,592,000, not {value!r}")

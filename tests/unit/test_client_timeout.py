"""The timeout that an SDK declares is the deadline, where that is wanted and it is the shorter one."""

from __future__ import annotations

import pytest

from frontend.transport.call_headers import CallHeaders
from lifecycle.settings import load


@pytest.mark.parametrize(
    ("declared", "header", "setting", "deadline_secs"),
    [
        ("600", None, 0, 600),
        ("600.5", "30", 0, 30),
        ("20", "30", 0, 20),
        ("600", None, 60, 60),
        ("20", None, 60, 20),
        *((wrong, None, 60, 60) for wrong in ("", "None", "nan", "inf", "-1", "0", "1e9")),
    ],
)
def test_the_shortest_of_all_applies(declared: str, header: str | None, setting: float, deadline_secs: float) -> None:
    sent = {"x-stainless-read-timeout": declared} | ({"x-deadline-secs": header} if header else {})
    settings = load({"adopt_client_timeout": True, "deadline_secs": setting})
    assert CallHeaders.parse(sent, settings).limits.deadline_secs == deadline_secs


@pytest.mark.parametrize(
    ("sent", "deadline_secs"),
    [
        ({"x-stainless-timeout": "20"}, 20),  # the SDKs for Node.js
        ({"x-stainless-timeout": "0"}, 60),  # less than a second, of which they send whole ones
        ({"x-stainless-timeout": "NOT_GIVEN", "x-stainless-read-timeout": "30.5"}, 30.5),  # Anthropic's for Python
        ({"x-stainless-timeout": "20", "x-stainless-read-timeout": "None"}, 20),
    ],
)
def test_each_sdk_is_understood(sent: dict[str, str], deadline_secs: float) -> None:
    settings = load({"adopt_client_timeout": True, "deadline_secs": 60})
    assert CallHeaders.parse(sent, settings).limits.deadline_secs == deadline_secs


def test_it_is_ignored_unless_it_is_wanted() -> None:
    for name in ("x-stainless-read-timeout", "x-stainless-timeout"):
        assert CallHeaders.parse({name: "5"}, load()).limits.deadline_secs == 0

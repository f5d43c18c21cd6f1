"""The fields and query parameters of calls: what is not of the documented type is refused, and never guessed."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.transport import params
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.integers import parse_integer
from lifecycle.types import CancelMode


@pytest.mark.parametrize("value", [None, "", "kill"])
def test_a_cancel_kills_by_default(value: str | None) -> None:
    assert params.cancel_mode({"mode": value}) is CancelMode.KILL


@pytest.mark.parametrize("value", [False, 0, [], {}, "Kill", 1])
def test_a_mode_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(ApiError) as raised:
        params.cancel_mode({"mode": value})
    assert (raised.value.status, raised.value.param) == (400, "mode")


@pytest.mark.parametrize("text", ["7", "007"])
def test_an_integer_is_written_in_digits(text: str) -> None:
    assert parse_integer(text, "limit", 1, 0, 10) == 7


@pytest.mark.parametrize("text", ["", " 7", "+7", "1_0", "7.0", "-1", "11", "٧", "9" * 5000])
def test_any_other_text_is_no_integer(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_integer(text, "limit", 1, 0, 10)
    assert (raised.value.status, raised.value.param) == (400, "limit")

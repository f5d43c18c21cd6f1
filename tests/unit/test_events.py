"""Engines yield events: some values are refused, some events carry content, and some fields are taken out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.formats.chunk_events import encode, examine, is_empty, take_usage


def chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, **choice}]}


@pytest.mark.parametrize(
    "event",
    [
        chunk({"content": "a"}),
        chunk({"content": [{"type": "text", "text": "a"}]}),
        chunk({"reasoning": "hm"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"refusal": "no"}),
        chunk({"audio": {"id": "a"}}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({"role": "assistant", "content": "a"}),
        chunk({}, logprobs={"content": [{"token": "a"}]}),
        chunk({}, token_ids=[1]),
        {"choices": [{"index": 0, "text": "a"}]},
        {"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {"content": "b"}}]},
        {"object": "list", "data": [1]},
    ],
)
def test_an_event_has_content(event: dict[str, Any]) -> None:
    assert examine(event)[0]


@pytest.mark.parametrize(
    "event",
    [
        chunk({}),
        chunk({"role": "assistant"}),
        chunk({"role": "assistant", "content": ""}, logprobs=None, finish_reason=None),
        chunk({"content": None}, finish_reason="stop", stop_reason=128009),
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        {"choices": [], "system_fingerprint": "x"},
        {"choices": ["odd"]},
        {},
    ],
)
def test_an_event_has_no_content(event: dict[str, Any]) -> None:
    assert not examine(event)[0]


@pytest.mark.parametrize(
    ("value", "named"),
    [(None, "yielded None"), (b"x", "type bytes"), (42, "type int"), (["x"], "type list"), ({"a": object()}, "JSON")],
)
def test_a_value_that_is_no_event_is_named(value: object, named: str) -> None:
    with pytest.raises(TypeError, match=named) as raised:
        encode(value)
    assert "yield" in str(raised.value)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": ({"index": 0, "delta": {}, "finish_reason": "stop"},)},
        {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1}},
        {"answer": ("a", "b")},
    ],
)
def test_what_json_shows_otherwise_is_looked_into_as_readers_get_it(event: dict[str, Any]) -> None:
    fields, encoded = encode(event)
    assert fields == orjson.loads(encoded)
    assert fields is not event


def test_what_has_no_place_in_json_is_replaced_where_it_can_be() -> None:
    assert orjson.loads(encode({"a": "\ud800", 1: 2**70})[1]) == {"a": "\ufffd", "1": float(2**70)}


def test_the_usage_is_taken_out_of_a_chunk_only() -> None:
    event = {"choices": [], "usage": {"prompt_tokens": 1}}
    assert take_usage(event) == {"prompt_tokens": 1}
    assert event == {"choices": [], "usage": None}, "which marks what is left"
    assert is_empty(event)
    event = chunk({"content": "a"}) | {"usage": {"prompt_tokens": 1}}
    assert take_usage(event) == {"prompt_tokens": 1}
    assert event == chunk({"content": "a"})
    whole = {"object": "list", "usage": {"prompt_tokens": 1}}
    assert take_usage(whole) is None
    assert "usage" in whole


def test_the_finish_reason_is_that_of_choice_0() -> None:
    second = {"index": 1, "finish_reason": "length"}
    assert examine({"choices": [second]})[1] is None
    assert examine({"choices": [second, {"index": 0, "finish_reason": "stop"}]})[1] == "stop"
    assert examine({"choices": [{"finish_reason": "stop"}]})[1] == "stop"

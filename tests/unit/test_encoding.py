"""Whatever an engine puts into an event becomes JSON that every reader can parse."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.encoding import encodable, encode_events


def test_events_that_are_json_are_encoded_as_they_are() -> None:
    events: list[Any] = ["a", {"choices": [], "seed": 2**63, "deep": {"empty": {}, "x": [1.5, None, True]}}]
    assert encode_events(events) == orjson.dumps(events)


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        ("a\ud800b", "a\ufffdb"),
        (
            {"delta": {"content": "a\ud800b", "\udc00": ["\ud83d"]}},
            {"delta": {"content": "a\ufffdb", "\ufffd": ["\ufffd"]}},
        ),
        ({"n": 2**70, "m": -(2**70), "ok": 2**64 - 1}, {"n": 2.0**70, "m": -(2.0**70), "ok": 2**64 - 1}),
        ({"n": 10**400}, {"n": None}),
        ({"t": ("\ud800", 1), 5: {1, 2}}, {"t": ["\ufffd", 1], "5": "{1, 2}"}),
        ({"e": ValueError("no\ud800")}, {"e": "no\ufffd"}),
    ],
)
def test_what_json_cannot_carry_is_replaced(event: Any, encoded: Any) -> None:
    assert orjson.loads(encode_events(["before", event])) == ["before", encoded]


def test_an_event_that_contains_itself_does_not_end_the_worker() -> None:
    event: dict[str, Any] = {"choices": []}
    event["choices"].append(event)
    assert orjson.loads(encode_events([event]))[0]["choices"][0]["choices"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("é 😀 \u2028 \ufeff \x00", "é 😀 \u2028 \ufeff \x00"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("end\ud83d", "end\ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_only_lone_surrogates_of_a_text_are_replaced(text: str, clean: str) -> None:
    assert encodable(text) == clean

"""A worker reads the events of the Responses API: what it writes, and what the events say about the answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.errors import EngineError
from lifecycle.formats.event_format import format_of
from lifecycle.formats.origin import Origin
from lifecycle.formats.produced import Produced
from lifecycle.types import Endpoint, ErrorType, Event

BODY: dict[str, Any] = {
    "model": "m",
    "input": "hi",
    "instructions": "Be brief.",
    "background": True,
    "metadata": {"a": "b"},
    "previous_response_id": "resp_0",
}
UPSTREAM = {
    "id": "resp_upstream",
    "object": "response",
    "created_at": 5,
    "model": "m-2026",
    "status": "in_progress",
    "background": False,
    "store": False,
    "temperature": 0.3,
    "output": [],
}


def read(*events: object, emitted: tuple[Event, ...] = ()) -> list[Produced]:
    reader = format_of(Endpoint.RESPONSES, Origin("resp_1", 1700000000.5, BODY, emitted))
    return [reader.read(event) for event in events]


def test_a_response_object_carries_what_is_the_requests_own() -> None:
    (produced,) = read({"type": "response.created", "sequence_number": 0, "response": UPSTREAM})
    event = orjson.loads(produced.encoded)
    assert set(event) == {"type", "response"}
    response = event["response"]
    assert response["id"] == "resp_1"
    assert response["created_at"] == 1700000000
    assert response["model"] == "m"
    assert response["background"] is True
    assert response["store"] is True
    assert response["metadata"] == {"a": "b"}
    assert response["previous_response_id"] == "resp_0"
    assert response["instructions"] == "Be brief."
    assert response["temperature"] == 0.3, "the engine's own value, which the client did not give"
    assert response["truncation"] == "disabled", "a field that the engine left out has its default"


def test_openings_are_written_once() -> None:
    created = {"type": "response.created", "response": UPSTREAM}
    progress = {"type": "response.in_progress", "response": UPSTREAM}
    earlier: Event = {"type": "response.created", "response": {}}
    first, second, third = read(created, progress, progress, emitted=(earlier,))
    assert (first.encoded, first.is_opening) == (b"", True)
    assert second.encoded
    assert second.is_opening
    assert not third.encoded


@pytest.mark.parametrize(
    ("event", "content"),
    [
        ({"type": "response.output_text.delta", "delta": "x"}, True),
        ({"type": "response.output_text.delta", "delta": ""}, False),
        ({"type": "response.function_call_arguments.delta", "delta": "{"}, True),
        ({"type": "response.reasoning_text.delta", "delta": "hm"}, True),
        ({"type": "response.output_item.added", "item": {"type": "message"}}, False),
        ({"type": "response.output_item.added", "item": {"type": "function_call"}}, True),
        ({"type": "response.output_text.done", "text": "x"}, False),
        ({"type": "response.content_part.added", "part": {}}, False),
    ],
)
def test_events_with_content_are_told_from_others(event: dict[str, Any], content: bool) -> None:
    (produced,) = read(event)
    assert produced.has_content is content
    assert not produced.is_opening
    assert orjson.loads(produced.encoded) == event


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("completed", {}, "stop"),
        ("completed", {"output": [{"type": "function_call"}]}, "tool_calls"),
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ("incomplete", {"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_the_ending_event_gives_finish_reason_and_usage_in_chats_terms(
    kind: str, fields: dict[str, Any], reason: str
) -> None:
    usage = {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5, "input_tokens_details": {"cached_tokens": 1}}
    (produced,) = read({"type": f"response.{kind}", "response": UPSTREAM | {"usage": usage} | fields})
    assert produced.finish_reason == reason
    assert produced.usage == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert orjson.loads(produced.encoded)["response"]["usage"] == usage


@pytest.mark.parametrize(
    ("event", "status", "code", "param"),
    [
        ({"type": "error", "code": "boom", "message": "it broke", "param": "input"}, 500, "boom", "input"),
        ({"type": "error", "error": "it broke"}, 500, None, None),
        ({"type": "error", "error": {"code": 17, "message": "it broke", "type": "x"}}, 500, 17, None),
        (
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "it broke"}}},
            429,
            "rate_limit_exceeded",
            None,
        ),
        (
            {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "it broke"}}},
            400,
            "invalid_prompt",
            None,
        ),
    ],
)
def test_the_failure_of_an_upstream_is_raised(
    event: dict[str, Any], status: int, code: str | int, param: str | None
) -> None:
    with pytest.raises(EngineError) as raised:
        read(event)
    assert raised.value.message == "it broke"
    assert raised.value.detail.status == status
    assert raised.value.detail.code == code
    assert raised.value.detail.param == param


def test_a_failure_without_words_is_a_failure_all_the_same() -> None:
    with pytest.raises(EngineError) as raised:
        read({"type": "response.failed", "response": {"error": None}})
    assert raised.value.error_type is ErrorType.INTERNAL
    assert raised.value.message


@pytest.mark.parametrize("event", ["text", {"choices": []}, {"type": 1}, {"type": ""}, {"type": "a\nid: 1"}, None])
def test_what_is_no_event_is_refused(event: object) -> None:
    with pytest.raises(TypeError, match="yield"):
        read(event)


def test_the_items_of_an_answer_are_named() -> None:
    added = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_1"}}
    output = [
        {"type": "message", "id": "msg_1"},
        {"type": "other", "id": "no id\n"},
        {"type": "message"},
        {"id": "fc_2"},
    ]
    completed = {"type": "response.completed", "response": UPSTREAM | {"output": output}}
    assert [produced.item_ids for produced in read(added, completed)] == [("msg_1",), ("msg_1", "fc_2")]

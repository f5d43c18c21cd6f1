"""A worker reads the events of the Messages API: what they say about the answer, and whose id they carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from lifecycle.errors import EngineError
from lifecycle.formats.messages import MessagesFormat
from lifecycle.formats.messages_usage import from_chat, to_chat
from lifecycle.formats.origin import Origin
from lifecycle.formats.produced import Produced
from lifecycle.types import ErrorType, Event

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "model": "other",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
}
PING = {"type": "ping"}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}


def reading(emitted: Sequence[Event] = ()) -> MessagesFormat:
    return MessagesFormat(Origin("msg_1", 0.0, {"model": "m"}, emitted))


def test_the_message_has_the_requests_id_and_model() -> None:
    produced = reading().read(START)
    assert orjson.loads(produced.encoded)["message"] == START["message"] | {"id": "msg_1", "model": "m"}
    assert produced.is_opening
    assert produced.usage == {"prompt_tokens": 15}


def test_a_later_attempt_repeats_no_opening() -> None:
    format = reading([START, PING])
    assert [format.read(event).encoded for event in (START, PING)] == [b"", b""]
    assert format.read(PING).is_opening
    assert format.read(TEXT) == Produced(orjson.dumps(TEXT), has_content=True)
    later = format.read(PING)
    assert (later.encoded, later.is_opening, later.has_content) == (b'{"type":"ping"}', False, False)


def test_the_end_has_the_finish_reason_and_the_usage_in_chats_terms() -> None:
    format = reading()
    format.read(START)
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    details = {"thinking_tokens": 3}
    end = {
        "type": "message_delta",
        "delta": delta,
        "usage": {"output_tokens": 20, "input_tokens": None, "output_tokens_details": details},
    }
    produced = format.read(end)
    assert (produced.finish_reason, produced.has_content, orjson.loads(produced.encoded)) == ("tool_calls", False, end)
    assert produced.usage == {
        "prompt_tokens": 15,
        "completion_tokens": 20,
        "total_tokens": 35,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert not format.read({"type": "message_stop"}).has_content


@pytest.mark.parametrize(
    ("event", "has_content"),
    [
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, False),
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "x"}}, True),
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}}, True),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}, False),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "x"}}, True),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}}, True),
        ({"type": "content_block_stop", "index": 0}, False),
        ({"type": "something_new", "x": 1}, True),
    ],
)
def test_what_carries_a_part_of_the_answer(event: dict[str, Any], has_content: bool) -> None:
    produced = reading().read(event)
    assert (produced.has_content, produced.is_opening) == (has_content, False)
    assert orjson.loads(produced.encoded) == event


@pytest.mark.parametrize(
    ("kind", "status", "error_type"),
    [
        ("overloaded_error", 500, ErrorType.INTERNAL),
        ("rate_limit_error", 429, ErrorType.OVERLOAD),
        ("invalid_request_error", 400, ErrorType.VALIDATION),
    ],
)
def test_an_error_event_is_raised(kind: str, status: int, error_type: ErrorType) -> None:
    with pytest.raises(EngineError, match="too much") as raised:
        reading().read({"type": "error", "error": {"type": kind, "message": "too much"}})
    assert (raised.value.detail.status, raised.value.detail.type, raised.value.error_type) == (status, kind, error_type)


@pytest.mark.parametrize("event", ["text", None, {"type": 1}, {"choices": []}])
def test_what_is_no_event_is_named(event: Any) -> None:
    with pytest.raises(TypeError, match="events of the Messages API"):
        reading().read(event)


def test_usage_goes_both_ways() -> None:
    chat = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert to_chat(from_chat(chat, 0)) == chat
    assert from_chat(None, 5) == {"input_tokens": 0, "output_tokens": 5}
    assert to_chat({}) == {}

"""The stream of a message as bytes: what is held back, and how it ends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.endpoint import Answer
from frontend.endpoints.messages.errors import error_object
from frontend.endpoints.messages.fold import MessageFold
from frontend.endpoints.messages.partial_json import parse_partial
from frontend.endpoints.messages.sse import MessageEncoder
from lifecycle.formats.message_object import new_message
from lifecycle.tokens.items import End
from lifecycle.types import ErrorDetail, Event

ANSWER = Answer("msg_1", "m", 0.0)
START: Event = {"type": "message_start", "message": new_message("msg_1", "m", {"input_tokens": 4, "output_tokens": 0})}
BEGIN: Event = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA: Event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüße"}}
CLOSE: Event = {"type": "content_block_stop", "index": 0}
LAST: Event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
STOP: Event = {"type": "message_stop", "vendor": 1}
WHOLE = [START, BEGIN, DELTA, CLOSE, LAST, STOP]


def ended(status: str = "completed", error_type: str = "", message: str = "", **more: Any) -> End:
    return End(status, error_type, message, "stop", 6, **more)


def read(wire: bytes) -> list[tuple[str, str, Any]]:
    """(id, event, data) of each server-sent event."""
    found = []
    for block in wire.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("id", ""), fields.get("event", ""), orjson.loads(fields["data"])))
    return found


def test_the_last_event_waits_for_the_end_of_the_request() -> None:
    encoder = MessageEncoder(ANSWER)
    sent = encoder.tokens(1, 1, WHOLE)
    assert [data for _, _, data in read(sent)] == WHOLE[:-1]
    assert (encoder.is_holding, encoder.release()) == (False, b"")
    assert encoder.tokens(1, 1, WHOLE) == sent  # a write that did not go through is encoded again
    assert read(encoder.ending(ended())) == [("1-6", "message_stop", STOP)]


def test_a_request_that_fails_behind_its_last_event_ends_with_the_error() -> None:
    encoder = MessageEncoder(ANSWER)
    encoder.tokens(1, 1, WHOLE)
    [(name, event, data)] = read(encoder.ending(ended("failed", "worker_lost", "gone")))
    assert (name, event) == ("", "error")
    assert data == {"type": "error", "error": {"type": "api_error", "message": "gone"}, "request_id": "msg_1"}


@pytest.mark.parametrize("count", range(6))
def test_a_stopped_answer_is_completed(count: int) -> None:
    encoder, fold = MessageEncoder(ANSWER), MessageFold()
    events = read(encoder.tokens(1, 1, WHOLE[:count]))
    fold.add(WHOLE[:count])
    events += read(encoder.ending(ended(input_tokens=4)))
    kinds = [event for _, event, _ in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop")
    assert [name for name, _, _ in events[:count]] == [f"1-{number}" for number in range(1, count + 1)]
    assert {name for name, _, _ in events[count:]} == {""}
    body = fold.body("msg_1", "m", 0, ended(input_tokens=4))
    assert (body["stop_reason"], body["type"], body["usage"]["input_tokens"]) == ("end_turn", "message", 4)
    assert [block["text"] for block in body["content"]] == ["" if count == 2 else "Grüße"] * (count > 1)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (ended("cancelled", "cancelled", "x"), "api_error"),
        (ended("failed", "response_timeout", "x"), "timeout_error"),
        (ended("failed", "state_lost", "x"), "overloaded_error"),
        (ended("failed", "internal", "x", detail=ErrorDetail(529, "overloaded_error")), "overloaded_error"),
        (ended("failed", "overload", "x", detail=ErrorDetail(429, "odd")), "rate_limit_error"),
        (ended("failed", "internal", "x", detail=ErrorDetail(401, "authentication_error")), "api_error"),
    ],
)
def test_the_type_of_an_error_event(end: End, kind: str) -> None:
    [(_, _, data)] = read(MessageEncoder(ANSWER).ending(end))
    assert data["error"] == {"type": kind, "message": "x"}


@pytest.mark.parametrize(
    ("status", "given", "kind"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (403, "invalid_request_error", "permission_error"),
        (409, "odd", "invalid_request_error"),
        (413, None, "request_too_large"),
        (500, "overloaded_error", "overloaded_error"),
        (500, "server_error", "api_error"),
        (504, None, "timeout_error"),
    ],
)
def test_the_type_of_an_error(status: int, given: str | None, kind: str) -> None:
    assert error_object(status, given, "\ud800", "msg_1")["error"]["type"] == kind


def test_a_lone_surrogate_and_a_strange_type_are_written() -> None:
    strange: Event = {"type": "a\nid: 9-9", "text": "\ud800"}
    [(name, event, data)] = read(MessageEncoder(ANSWER).tokens(1, 1, [strange]))
    assert (name, event, data["type"]) == ("1-1", "", "a\nid: 9-9")


def begins(index: int, **block: Any) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def adds(index: int, **delta: Any) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_a_block_keeps_what_its_deltas_bring() -> None:
    fold = MessageFold()
    fold.add(
        [
            begins(0, type="text", text="a", citations=None),
            adds(0, type="citations_delta", citation={"n": 1}),
            adds(0, type="citations_delta", citation={"n": 2}),
            adds(0, type="text_delta", text="b"),
            begins(1, type="server_tool_use", input={}),
            adds(1, type="input_json_delta", partial_json='{"a":1,'),
            adds(7, type="text_delta", text="of no block"),
        ]
    )
    assert fold.body("msg_1", "m", 0, ended())["content"] == [
        {"type": "text", "text": "ab", "citations": [{"n": 1}, {"n": 2}]},
        {"type": "server_tool_use", "input": {"a": 1}},
    ]


WHOLE_INPUT = '{"city": "Os\\"lo", "days": [1, 22, {"a": null, "b": [true]}], "n": {"x": -1.5e3}, "last": "z"}'


@pytest.mark.parametrize("length", range(len(WHOLE_INPUT) + 1))
def test_the_input_of_a_tool_that_is_cut_off_is_what_the_sdk_reads(length: int) -> None:
    from_json = pytest.importorskip("jiter").from_json
    text = WHOLE_INPUT[:length]
    assert parse_partial(text) == (from_json(text.encode(), partial_mode=True) if text else {})


@pytest.mark.parametrize("text", ["]", "}{", '{"a": 1}}', "[" * 100_000, "nul", '"' * 9])
def test_input_that_is_no_json_is_bounded_work(text: str) -> None:
    parse_partial(text)

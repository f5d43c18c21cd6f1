"""The response of a server of the Messages API becomes its events, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.messages.fold import MessageFold
from lifecycle.errors import EngineError, Unavailable
from lifecycle.formats.message_object import new_message
from lifecycle.tokens.items import End
from worker.engines.messages_parser import MessagesParser

START = {"type": "message_start", "message": new_message("msg_1", "m", {"input_tokens": 1, "output_tokens": 1})}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
STOP = {"type": "message_stop"}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


def parsed(*chunks: bytes | None) -> tuple[MessagesParser, list[Any]]:
    parser = MessagesParser()
    return parser, [event for chunk in chunks for event in parser.feed(chunk)]


def test_the_events_are_those_of_the_upstream() -> None:
    data = sse(START, {"type": "ping"}, DELTA, STOP)
    for cut in (1, 40, len(data) // 2):
        parser, events = parsed(data[:cut], data[cut:])
        assert events == [START, {"type": "ping"}, DELTA, STOP]
        assert parser.finished
        assert parser.ended


@pytest.mark.parametrize(("before", "kind"), [((START,), Unavailable), ((START, DELTA), EngineError)])
def test_a_stream_that_breaks_off(before: Any, kind: type[Exception]) -> None:
    parser = MessagesParser()
    assert len(list(parser.feed(sse(*before)))) == len(before)
    with pytest.raises(kind, match="Stream ended"):
        list(parser.feed(None))


@pytest.mark.parametrize(
    ("error", "status"),
    [("overloaded_error", 500), ("rate_limit_error", 429), ("invalid_request_error", 400), ("odd", 500)],
)
def test_an_error_keeps_its_type(error: str, status: int) -> None:
    with pytest.raises(EngineError, match="no more") as raised:
        parsed(sse(START, {"type": "error", "error": {"type": error, "message": "no more"}}))
    assert (raised.value.detail.status, raised.value.detail.type) == (status, error)


@pytest.mark.parametrize("data", [b"data: {}\n\n", b"data: [1]\n\n", b'data: {"type": 1}\n\n', b'{"type": "list"}'])
def test_what_is_no_event_is_named(data: bytes) -> None:
    with pytest.raises(EngineError, match="Messages API"):
        parsed(data, None)


def test_a_message_that_is_no_stream_becomes_the_events_of_one() -> None:
    message = new_message("msg_1", "m", {"input_tokens": 3, "output_tokens": 4}) | {
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
    }
    parser, events = parsed(orjson.dumps(message), None)
    assert parser.finished
    fold = MessageFold()
    fold.add(events)
    assert fold.body("msg_1", "m", 0, End("completed", "", "", "tool_calls", len(events))) == message

"""The event stream of a response: numbers, the ending that is held back, and what ends it otherwise."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.responses.fold import ResponseFold
from frontend.endpoints.responses.sse import ResponseEncoder
from lifecycle.formats.response_object import new_response
from lifecycle.tokens.items import End
from lifecycle.types import ErrorDetail, ErrorType, Event, Status

BASE = new_response("resp_1", 17, {"model": "m"}, "in_progress")
CREATED: Event = {"type": "response.created", "response": BASE}
MESSAGE = {"type": "message", "content": []}
ITEM: dict[str, Any] = {"type": "response.output_item.added", "output_index": 0, "item": MESSAGE}
DELTA: dict[str, Any] = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hi"}
COMPLETED: Event = {"type": "response.completed", "response": BASE | {"status": "completed", "output": [{"a": 1}]}}


def encoder() -> ResponseEncoder:
    return ResponseEncoder(17.5, ResponseFold(BASE))


def end(status: Status, last: int, error_type: str = "", message: str = "", **fields: Any) -> End:
    return End(status, error_type, message, "stop" if status is Status.COMPLETED else "", last, **fields)


def parsed(data: bytes) -> list[tuple[str | None, str, dict[str, Any]]]:
    """Return id, event and data of each event."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("id"), fields["event"], orjson.loads(fields["data"])))
    return found


def numbers(data: bytes) -> list[int]:
    return [event["sequence_number"] for _, _, event in parsed(data)]


def test_events_carry_their_id_their_type_and_their_number() -> None:
    data = encoder().tokens(2, 5, [ITEM, DELTA])
    assert parsed(data) == [
        ("2-5", "response.output_item.added", {**ITEM, "sequence_number": 4}),
        ("2-6", "response.output_text.delta", {**DELTA, "sequence_number": 5}),
    ]


def test_encoding_again_gives_the_same_bytes_and_folds_nothing_twice() -> None:
    encoded = encoder()
    assert encoded.tokens(1, 1, [ITEM, DELTA]) == encoded.tokens(1, 1, [ITEM, DELTA])
    (made,) = parsed(encoded.ending(end(Status.COMPLETED, 2)))
    assert made[2]["response"]["output"][0]["content"][0]["text"] == "hi"


def test_the_ending_is_held_back_until_the_request_has_completed() -> None:
    encoded = encoder()
    assert numbers(encoded.tokens(1, 1, [CREATED, ITEM, DELTA, COMPLETED])) == [0, 1, 2]
    assert encoded.is_holding
    assert encoded.release() == b""
    assert encoded.tokens(1, 5, [DELTA]) == b"", "nothing follows an ending"
    (last,) = parsed(encoded.ending(end(Status.COMPLETED, 5)))
    assert (last[0], last[1], last[2]["sequence_number"]) == ("1-4", "response.completed", 3)


def test_an_ending_without_output_is_completed_from_the_events_before() -> None:
    encoded = encoder()
    encoded.tokens(1, 1, [ITEM, DELTA, {"type": "response.completed", "response": BASE | {"status": "completed"}}])
    ((_, _, last),) = parsed(encoded.ending(end(Status.COMPLETED, 3)))
    assert last["response"]["output"][0]["content"][0]["text"] == "hi"


def test_a_failure_takes_the_number_of_the_ending_that_was_held_back() -> None:
    encoded = encoder()
    encoded.tokens(1, 1, [CREATED, COMPLETED])
    (last,) = parsed(encoded.ending(end(Status.FAILED, 2, ErrorType.DEADLINE, "too late")))
    assert (last[0], last[1], last[2]["sequence_number"]) == (None, "response.failed", 1)
    assert last[2]["response"]["error"] == {"code": "deadline", "message": "too late"}
    assert last[2]["response"]["status"] == "failed"


@pytest.mark.parametrize(
    ("detail", "code"),
    [
        (None, "internal"),
        (ErrorDetail(429, code="rate_limit_exceeded"), "rate_limit_exceeded"),
        (ErrorDetail(500, code=17), "internal"),
        (ErrorDetail(401, code="invalid_api_key"), "internal"),
    ],
)
def test_the_code_of_a_failure_is_the_upstreams_if_clients_may_see_it(detail: ErrorDetail | None, code: str) -> None:
    (last,) = parsed(encoder().ending(end(Status.FAILED, 0, ErrorType.INTERNAL, "no", detail=detail)))
    assert last[2]["response"]["error"]["code"] == code
    assert last[2]["sequence_number"] == 0


def test_a_cancelled_stream_ends_without_another_event() -> None:
    encoded = encoder()
    encoded.tokens(1, 1, [CREATED, COMPLETED])
    assert encoded.ending(end(Status.CANCELLED, 2, ErrorType.CANCELLED, "x")) == b""


@pytest.mark.parametrize("status", Status)
def test_a_client_that_has_the_ending_gets_nothing(status: Status) -> None:
    fold = ResponseFold(BASE)
    fold.add([CREATED, COMPLETED])
    assert ResponseEncoder(17, fold, 2).ending(end(status, 2, ErrorType.NONE)) == b""


def test_a_resumed_stream_goes_on_with_its_number() -> None:
    fold = ResponseFold(BASE)
    fold.add([CREATED, ITEM])
    encoded = ResponseEncoder(17, fold, 2)
    assert numbers(encoded.tokens(1, 3, [DELTA])) == [2]
    (made,) = parsed(encoded.ending(end(Status.COMPLETED, 3)))
    assert (made[1], made[2]["sequence_number"]) == ("response.completed", 3)
    assert made[2]["response"]["output"][0]["content"][0]["text"] == "hi"


def test_an_opening_that_was_written_at_admission_gets_its_time() -> None:
    queued: Event = {"type": "response.queued", "response": BASE | {"created_at": 0}}
    ((_, _, event),) = parsed(encoder().tokens(0, 1, [queued]))
    assert event["response"]["created_at"] == 17

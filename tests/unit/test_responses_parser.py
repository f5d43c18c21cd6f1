"""Check how the openai engine reads an upstream's own stream of the Responses API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from lifecycle.errors import STREAM_ENDED, EngineError, LifecycleError, Unavailable
from lifecycle.formats.response_object import new_response
from lifecycle.types import Event
from tests.responses import accumulate, kinds
from worker.engines.answer_parser import NOT_JSON
from worker.engines.responses_parser import ResponsesParser

RECORDED = Path(__file__).parents[1] / "recorded"
BASE = new_response("resp_up", 1.0, {"model": "m"}, "in_progress")
CREATED = {"type": "response.created", "response": BASE}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
DELTA = {"type": "response.output_text.delta", **PLACE, "delta": "a", "logprobs": []}
TEXT = {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [TEXT]}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "t"}],
    "status": "completed",
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
COMPLETED = {"type": "response.completed", "response": {**BASE, "status": "completed", "output": [MESSAGE]}}


def _wire(*events: Any, named: bool = True) -> bytes:
    """Return the server-sent events, as OpenAI numbers and names them."""
    wire = b""
    for number, event in enumerate(events):
        data = orjson.dumps({**event, "sequence_number": number} if isinstance(event, dict) else event)
        name = b"event: %b\n" % event["type"].encode() if named and isinstance(event, dict) and "type" in event else b""
        wire += name + b"data: %b\n\n" % data
    return wire


def _read(wire: bytes, parser: ResponsesParser | None = None, pieces: int = 0) -> list[Event]:
    parser = parser or ResponsesParser()
    chunks = [wire[at : at + pieces] for at in range(0, len(wire), pieces)] if pieces else [wire]
    read: list[Event] = []
    for chunk in [*chunks, None]:
        if not parser.ended:
            read += parser.feed(chunk)
    assert parser.ended
    assert parser.finished
    return read


def _failing(wire: bytes) -> tuple[list[Event], LifecycleError]:
    parser, read = ResponsesParser(scrub=lambda text: text.replace("secret", "…")), list[Event]()
    try:
        for chunk in (wire, None):
            for event in parser.feed(chunk):
                read.append(event)
    except LifecycleError as failure:
        return read, failure
    raise AssertionError(f"no error after {read}")


@pytest.mark.parametrize("pieces", [0, 1, 7])
@pytest.mark.parametrize("named", [True, False])
def test_events_come_as_they_are_without_their_number(pieces: int, named: bool) -> None:
    events = [CREATED, DELTA, {"type": "response.vendor.thing", "x": [1]}, COMPLETED]
    assert _read(_wire(*events, named=named), pieces=pieces) == events


@pytest.mark.parametrize(
    "behind", [b"data: [DONE]\n\n", b"data: nonsense\n\n", _wire({"type": "error", "message": "late"}), b"data: {"]
)
def test_nothing_fails_an_answer_that_is_complete(behind: bytes) -> None:
    assert _read(_wire(CREATED, COMPLETED) + behind) == [CREATED, COMPLETED]
    assert _read(_wire(CREATED, COMPLETED) + behind, pieces=5) == [CREATED, COMPLETED]


def test_done_ends_an_answer_without_an_ending_event() -> None:
    assert _read(_wire(CREATED, DELTA) + b"data: [DONE]\n\n") == [CREATED, DELTA]


def test_a_recorded_stream_ends_as_incomplete() -> None:
    events = _read((RECORDED / "responses" / "vllm.sse").read_bytes(), pieces=100)
    assert kinds(events[:2]) == ["created", "in_progress"]
    assert kinds(events[-1:]) == ["incomplete"]
    assert [item["type"] for item in accumulate(events)["output"]] == ["reasoning"]


@pytest.mark.parametrize("name", ["llama_text", "llama_tools"])
def test_what_llama_cpp_leaves_out_is_completed(name: str) -> None:
    """The recorded streams have no indexes, no log probabilities, and a usage without all details."""
    events: list[Any] = _read((RECORDED / "responses" / f"{name}.sse").read_bytes(), pieces=100)
    for event in events:
        if "response" in event:
            event["response"] = {**BASE, **event["response"]}
    output = accumulate(events)["output"]
    assert {item["type"] for item in output} == {"message" if name == "llama_text" else "function_call"}


@pytest.mark.parametrize(
    ("event", "status", "type", "code", "param"),
    [
        ({"type": "error", "code": "server_error", "message": "m", "param": None}, 500, None, "server_error", None),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, 429, None, "rate_limit_exceeded", None),
        ({"type": "error", "code": "invalid_prompt", "message": "m", "param": "p"}, 400, None, "invalid_prompt", "p"),
        ({"type": "error", "error": {"type": "t", "code": "c", "message": "m"}}, 500, "t", "c", None),
        ({"type": "error", "error": {"type": "t", "code": 400, "message": "m"}}, 400, "t", 400, None),
        ({"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}}, 500, None, "c", None),
        ({"error": {"message": "m", "type": "t", "code": 404}}, 404, "t", 404, None),
    ],
)
def test_an_upstreams_error_keeps_its_parts(
    event: dict[str, Any], status: int, type: str | None, code: Any, param: str | None
) -> None:
    read, failure = _failing(_wire(CREATED, DELTA, event))
    assert read == [CREATED, DELTA]
    assert isinstance(failure, EngineError)
    detail = failure.detail
    assert (failure.message, detail.status, detail.type, detail.code, detail.param) == ("m", status, type, code, param)


def test_messages_are_scrubbed() -> None:
    assert _failing(_wire({"type": "error", "message": "secret"}))[1].message == "…"


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"data: {nonsense\n\n", NOT_JSON),
        (b"data: [1]\n\n", ResponsesParser.not_an_event),
        (b'data: {"choices":[]}\n\n', ResponsesParser.not_an_event),
        (b'data: {"type":7}\n\n', ResponsesParser.not_an_event),
        (b'data: {"type":"response.completed"}\n\n', ResponsesParser.not_an_event),
        (b"[1]", ResponsesParser.not_an_answer),
        (b'{"choices":[]}', ResponsesParser.not_an_answer),
        (b'{"output":[],"status":"in_progress"}', ResponsesParser.not_an_answer),
        (b'{"output":[7]}', ResponsesParser.not_an_event),
        (b'{"status":"failed","output":[],"error":{"code":"server_error","message":"m"}}', "m"),
        (b'{"error":{"message":"m"}}', "m"),
        (b'event: error\ndata: {"message":"m"}\n\n', "m"),
        (b"event: error\ndata: m\n\n", "m"),
    ],
)
def test_what_is_no_answer_is_an_error(wire: bytes, message: str) -> None:
    read, failure = _failing(wire)
    assert (read, failure.message) == ([], message)


def test_an_answer_that_breaks_off_is_an_error_and_one_that_has_only_begun_can_move() -> None:
    read, failure = _failing(_wire(CREATED, DELTA))
    assert (read, failure.message) == ([CREATED, DELTA], STREAM_ENDED)
    assert isinstance(failure, EngineError)
    read, failure = _failing(_wire(CREATED))
    assert read == [CREATED]
    assert isinstance(failure, Unavailable)
    assert isinstance(
        _failing(_wire(CREATED, {"type": "error", "error": {"code": 503, "message": "m"}}))[1], Unavailable
    )


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_whole_response_becomes_the_events_of_its_stream(status: str) -> None:
    output = [REASONING, {**MESSAGE, "content": [TEXT, {"type": "refusal", "refusal": "no"}]}, CALL, SEARCH]
    response = {**BASE, "status": status, "output": output}
    events = _read(orjson.dumps(response), pieces=50)
    assert accumulate(events) == response
    part = ["content_part.added", "content_part.done"]
    assert kinds(events) == [
        *["created", "in_progress", "output_item.added", part[0], "reasoning_text.delta t", "reasoning_text.done"],
        *[part[1], "output_item.done", "output_item.added", part[0], "output_text.delta a", "output_text.done"],
        *[part[1], part[0], "refusal.delta no", "refusal.done", part[1], "output_item.done"],
        *["output_item.added", "function_call_arguments.delta {}", "function_call_arguments.done", "output_item.done"],
        *["output_item.added", "output_item.done", status],
    ]

"""The response object at any moment, folded from its events."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import pytest
from openai.types.responses import Response

from frontend.endpoints.responses.fold import ResponseFold
from lifecycle.execution.context import EngineContext
from lifecycle.formats.response_object import OPENINGS, new_response
from lifecycle.tokens.items import End
from lifecycle.types import Event
from tests.response_engine import ARGUMENTS, generate

BASE = new_response("resp_1", 17, {"model": "m"}, "in_progress")
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
AT = {"output_index": 0, "content_index": 0, "item_id": "x"}


def fold(*events: Event) -> ResponseFold:
    folded = ResponseFold(BASE)
    before = deepcopy(events)
    folded.add(events)
    assert events == before, "events are shared with other readers"
    return folded


def output(*events: Event) -> list[Any]:
    found: list[Any] = fold(*events).response("in_progress")["output"]
    return found


def added(**item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


async def produced(**body: Any) -> list[dict[str, Any]]:
    return [event async for event in generate(body, EngineContext("resp_1", 1))]


@pytest.mark.parametrize("tools", [[], [{"name": "weather"}]])
async def test_without_its_ending_a_response_is_what_its_ending_says(tools: list[Any]) -> None:
    *events, ending = await produced(input="a b c", tools=tools)
    events = [event for event in events if event["type"] not in OPENINGS]
    assert output(*events) == ending["response"]["output"]
    for count in range(len(events)):
        Response.model_validate(fold(*events[:count]).response("in_progress"))


async def test_texts_and_arguments_grow() -> None:
    events = await produced(input="a b", tools=[{"name": "weather"}])
    arguments = []
    for count in range(1, len(events)):
        arguments += [item["arguments"] for item in output(*events[:count])]
    assert arguments[: len(ARGUMENTS) + 1] == ["", *("".join(ARGUMENTS[:n]) for n in range(1, len(ARGUMENTS) + 1))]


def test_texts_that_grow_in_turn_are_told_apart() -> None:
    events: list[Event] = [added(type="message"), added(type="function_call") | {"output_index": 1}]
    for piece in ("a", "b", "c"):
        events.append({"type": "response.output_text.delta", **AT, "delta": piece})
        events.append({"type": "response.output_text.delta", **AT, "delta": piece})
        events.append({"type": "response.output_text.delta", **AT, "content_index": 1, "delta": piece.upper()})
        events.append({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": piece})
        events.append({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": piece})
    message, call = output(*events)
    assert [part["text"] for part in message["content"]] == ["aabbcc", "ABC"]
    assert call["arguments"] == "aabbcc"


def test_a_fold_can_be_read_and_continued() -> None:
    folded = fold(added(type="message", content=[]), {"type": "response.output_text.delta", **AT, "delta": "a"})
    assert folded.response("in_progress")["output"][0]["content"][0]["text"] == "a"
    folded.add([{"type": "response.output_text.delta", **AT, "delta": "b"}])
    assert folded.response("in_progress")["output"][0]["content"][0]["text"] == "ab"


def test_log_probabilities_and_annotations_are_kept() -> None:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    (item,) = output(
        added(type="message", content=[]),
        {"type": "response.content_part.added", **AT, "part": part},
        {"type": "response.output_text.delta", **AT, "delta": "a", "logprobs": [{"token": "a"}]},
        {"type": "response.output_text.delta", **AT, "delta": "b", "logprobs": [{"token": "b"}]},
        {"type": "response.output_text.annotation.added", **AT, "annotation_index": 0, "annotation": {"url": "u"}},
    )
    assert item["content"] == [
        {
            "type": "output_text",
            "text": "ab",
            "annotations": [{"url": "u"}],
            "logprobs": [{"token": "a"}, {"token": "b"}],
        }
    ]


def test_reasoning_and_refusals() -> None:
    at = {"output_index": 0, "summary_index": 0}
    (reasoning,) = output(
        added(type="reasoning", summary=[]),
        {"type": "response.reasoning_summary_part.added", **at, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": "h"},
        {"type": "response.reasoning_summary_text.done", **at, "text": "hm"},
        {"type": "response.reasoning_text.delta", **AT, "delta": "so"},
    )
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "so"}]
    (message,) = output(added(type="message"), {"type": "response.refusal.delta", **AT, "delta": "no"})
    assert message["content"] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.parametrize(
    "event",
    [
        "a text",
        {},
        {"type": None},
        {"type": "response.created", "response": None},
        {"type": "response.vendor.thing", "output_index": 0},
        {"type": "response.output_item.added", "output_index": "0", "item": {}},
        {"type": "response.output_item.added", "output_index": 3, "item": None},
        {"type": "response.output_text.delta", **AT, "output_index": 7, "delta": "a"},
        {"type": "response.output_text.delta", **AT, "content_index": 5, "delta": "a"},
        {"type": "response.output_text.delta", **AT, "content_index": -1, "delta": "a"},
        {"type": "response.output_text.delta", **AT, "delta": 5},
        {"type": "response.output_text.done", **AT, "text": None},
        {"type": "response.content_part.added", **AT, "content_index": 9, "part": {}},
        {"type": "response.content_part.added", **AT, "part": None},
        {"type": "response.output_text.annotation.added", **AT, "content_index": 4, "annotation": {}},
        {"type": "response.unknown.delta", **AT, "delta": "a"},
    ],
)
def test_an_event_that_says_nothing_changes_nothing(event: Event) -> None:
    message = added(type="message", content=[{"type": "output_text", "text": "x"}])
    assert output(message, event) == [message["item"]]


def test_the_ending_replaces_what_was_folded() -> None:
    done = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": []}], "usage": {"a": 1}}
    folded = fold(added(type="reasoning"), {"type": "response.completed", "response": done}, added(type="late"))
    answer = folded.completed(End("completed", "", "", "stop", 2))
    assert answer == done | {"created_at": 17}


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_a_response_without_an_ending_gets_one(reason: str, status: str, details: dict[str, str] | None) -> None:
    folded = fold(added(type="message", status="in_progress", content=[]))
    answer = folded.completed(End("completed", "", "", reason, 1, usage=USAGE))
    assert (answer["status"], answer["incomplete_details"]) == (status, details)
    assert answer["output"][0]["status"] == status
    assert answer["usage"]["output_tokens"] == 2


def test_a_long_text_is_folded_in_time_that_grows_with_its_length() -> None:
    """Adding each piece to the text would copy 125 GB here."""
    folded = fold(added(type="message"))
    delta: list[Event] = [{"type": "response.output_text.delta", **AT, "delta": "word"}]

    before_secs = time.process_time()
    for _ in range(250_000):
        folded.add(delta)
    assert time.process_time() - before_secs < 10
    assert len(folded.response("in_progress")["output"][0]["content"][0]["text"]) == 1_000_000


def test_the_time_of_the_admission_is_put_into_what_was_written_before_it_was_known() -> None:
    queued = new_response("resp_1", 0, {"model": "m"}, "queued")
    assert fold({"type": "response.queued", "response": queued}).response("queued")["created_at"] == 17

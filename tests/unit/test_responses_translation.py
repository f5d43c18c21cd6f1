"""Check the events of the Responses API that chat's become, by table, by OpenAI's client library, and when resumed."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.formats.origin import Origin
from lifecycle.translation.responses import ResponsesTranslation
from lifecycle.types import Event
from tests.responses import accumulate, kinds

BODY = {"model": "m", "input": "hi"}
OPENINGS = ["created", "in_progress"]
TEXT = ["output_item.added", "content_part.added"]
CALL = ["output_item.added"]
CALL_DONE = ["function_call_arguments.done", "output_item.done"]
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def _text_done(kind: str) -> list[str]:
    return [f"{kind}.done", "content_part.done", "output_item.done"]


def _chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


def _call(index: int, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = {
        name: value for name, value in {"name": more.pop("name", None), "arguments": arguments}.items() if value
    }
    return {"tool_calls": [{"index": index, **more, "function": function}]}


def _translation(emitted: list[Event] | None = None, **body: Any) -> ResponsesTranslation:
    return ResponsesTranslation(Origin("resp_1", 1700000000.5, BODY | body, emitted or []))


def _answer(
    chat: list[Event],
    finish_reason: str = "stop",
    usage: dict[str, Any] | None = None,
    emitted: list[Event] | None = None,
) -> list[Any]:
    """Return the events that a translation writes for those of an engine."""
    translation = _translation(emitted)
    events = list(translation.begin())
    for event in chat:
        events += translation.add(event)
    return [*events, *translation.end(finish_reason, usage)]


THINKING: list[Event] = [_chunk(reasoning="a"), _chunk(reasoning_content="b"), "c"]
CALLS: list[Event] = [
    _chunk(role="assistant", content=None),
    _chunk(**_call(0, id="call_a", type="function", name="f")),
    _chunk(**_call(0, "{")),
    _chunk(**_call(1, id="call_b", type="function", name="g")),
    _chunk(**_call(1, "[")),
    _chunk(**_call(0, "}")),
    _chunk(**_call(1, "]")),
]


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ([], ["completed"]),
        ([_chunk(role="assistant", content="")], ["completed"]),
        (
            ["a", "b"],
            [*TEXT, "output_text.delta a", "output_text.delta b", *_text_done("output_text"), "completed"],
        ),
        (
            [_chunk(role="assistant", content="a"), _chunk(content=[{"type": "text", "text": "b"}, {"type": "x"}])],
            [*TEXT, "output_text.delta a", "output_text.delta b", *_text_done("output_text"), "completed"],
        ),
        (
            THINKING,
            [
                *[*TEXT, "reasoning_text.delta a", "reasoning_text.delta b", *_text_done("reasoning_text")],
                *[*TEXT, "output_text.delta c", *_text_done("output_text"), "completed"],
            ],
        ),
        (
            [_chunk(reasoning="a", content="b"), _chunk(reasoning="")],
            [
                *[*TEXT, "reasoning_text.delta a", *_text_done("reasoning_text")],
                *[*TEXT, "output_text.delta b", *_text_done("output_text"), "completed"],
            ],
        ),
        (
            ["a", _chunk(reasoning="b"), "c"],
            [
                *[*TEXT, "output_text.delta a", *_text_done("output_text")],
                *[*TEXT, "reasoning_text.delta b", *_text_done("reasoning_text")],
                *[*TEXT, "output_text.delta c", *_text_done("output_text"), "completed"],
            ],
        ),
        (
            ["a", _chunk(refusal="n"), _chunk(refusal="o")],
            [
                *[*TEXT, "output_text.delta a", "output_text.done", "content_part.done"],
                *["content_part.added", "refusal.delta n", "refusal.delta o", *_text_done("refusal"), "completed"],
            ],
        ),
        (
            CALLS,
            [
                *[*CALL, "function_call_arguments.delta {", *CALL, "function_call_arguments.delta ["],
                *["function_call_arguments.delta }", "function_call_arguments.delta ]"],
                *[*CALL_DONE, *CALL_DONE, "completed"],
            ],
        ),
        (
            [_chunk(reasoning="a"), _chunk(**_call(0, "{}", id="c", name="f")), "b"],
            [
                *[*TEXT, "reasoning_text.delta a", *_text_done("reasoning_text")],
                *[*CALL, "function_call_arguments.delta {}", *TEXT, "output_text.delta b"],
                *[*CALL_DONE, *_text_done("output_text"), "completed"],
            ],
        ),
        # The name comes behind the id, and the arguments have begun before it.
        (
            [_chunk(**_call(0, id="c")), _chunk(**_call(0, "{")), _chunk(**_call(0, "}", name="f"))],
            [*CALL, "function_call_arguments.delta {}", *CALL_DONE, "completed"],
        ),
        # Only choice 0 counts, and what is no chunk of chat is left out.
        (
            [{"choices": [{"index": 1, "delta": {"content": "a"}}]}, {"choices": [7, {"delta": None}]}, {}],
            ["completed"],
        ),
    ],
)
def test_chat_events_become_events_of_responses(chat: list[Event], expected: list[str]) -> None:
    events = _answer(chat)
    assert kinds(events) == OPENINGS + expected
    assert accumulate(events)["status"] == "completed"


def test_the_response_has_the_whole_output_and_the_usage() -> None:
    response = accumulate(_answer([*THINKING, *CALLS], "tool_calls", USAGE))
    shown = [{name: item[name] for name in item if name not in ("id", "status")} for item in response["output"]]
    text = {"type": "output_text", "annotations": [], "logprobs": [], "text": "c"}
    assert shown == [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "ab"}]},
        {"type": "message", "role": "assistant", "content": [text]},
        {"type": "function_call", "call_id": "call_a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "call_b", "name": "g", "arguments": "[]"},
    ]
    ids = [item["id"] for item in response["output"]]
    assert [id.partition("_")[0] for id in ids] == ["rs", "msg", "fc", "fc"]
    assert len(set(ids)) == 4
    assert {item["status"] for item in response["output"]} == {"completed"}
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 3
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 2
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (5, 7)
    assert (response["id"], response["created_at"], response["error"]) == ("resp_1", 1700000000, None)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 5}])
def test_an_engine_that_counts_nothing_is_counted_by_its_pieces(usage: dict[str, Any] | None) -> None:
    counted = accumulate(_answer(THINKING, usage=usage))["usage"]
    read = usage["prompt_tokens"] if usage else 0
    assert (counted["input_tokens"], counted["output_tokens"], counted["total_tokens"]) == (read, 3, read + 3)


def test_a_call_without_an_id_gets_one() -> None:
    call = accumulate(_answer([_chunk(**_call(0, "{}", name="f"))]))["output"][0]
    assert call["call_id"].startswith("call_")
    assert call["call_id"].removeprefix("call_") == call["id"].removeprefix("fc_")


def test_calls_without_an_index_are_told_apart_by_their_place() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    output = accumulate(_answer([_chunk(tool_calls=calls)]))["output"]
    assert [item["name"] for item in output] == ["f", "g"]


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_off_is_incomplete(finish_reason: str, reason: str) -> None:
    events = _answer([_chunk(reasoning="a"), "b"], finish_reason)
    response = accumulate(events)
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_log_probabilities_come_with_their_text_and_at_its_end() -> None:
    top = [{"id": 2, "token": "b", "bytes": [98], "logprob": -2.0}]
    given = {"id": 1, "token": "a", "bytes": None, "logprob": -1.0, "top_logprobs": top}
    kept = {
        "token": "a",
        "bytes": [97],
        "logprob": -1.0,
        "top_logprobs": [{"token": "b", "bytes": [98], "logprob": -2.0}],
    }

    def chunk(**delta: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "logprobs": {"content": [given]}}]}

    # Those of reasoning and of calls have no place; those of an incomplete character come with an empty text.
    events = _answer([chunk(reasoning="r"), chunk(content="a"), chunk(content=""), chunk(**_call(0, "{}", name="f"))])
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [(event["delta"], event["logprobs"]) for event in deltas] == [("a", [kept]), ("", [kept])]
    assert accumulate(events)["output"][1]["content"][0]["logprobs"] == [kept, kept]


LOGPROB = {"token": "c", "bytes": [99], "logprob": -1.0, "top_logprobs": []}
RESUMED: list[Event] = [
    _chunk(reasoning_content="a"),
    _chunk(reasoning_content="b"),
    "c",
    {"choices": [{"index": 0, "delta": {"content": "d"}, "logprobs": {"content": [LOGPROB]}}]},
    _chunk(refusal="e"),
    *[_chunk(tool_calls=[{"index": n, "id": id, "type": "function", "function": {"name": "f", "arguments": ""}}])
      for n, id in enumerate(("call_a", "call_b"))],
    _chunk(tool_calls=[{"index": 1, "function": {"arguments": "{"}}]),
    _chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
    _chunk(tool_calls=[{"index": 1, "function": {"arguments": "}"}}]),
]  # fmt: skip


@pytest.mark.parametrize("length", range(len(_answer(RESUMED)) + 1))
def test_another_attempt_continues_the_same_items_wherever_the_first_broke_off(length: int) -> None:
    whole = _answer(RESUMED, "length", USAGE)
    left = whole[:length]
    yielded = list(_translation(left).emitted)
    assert yielded == RESUMED[: len(yielded)]
    assert left + _answer(RESUMED[len(yielded) :], "length", USAGE, left) == whole


def test_openings_of_the_frontend_and_of_other_attempts_are_not_repeated() -> None:
    queued: list[Event] = [{"type": "response.queued", "response": {}}]
    assert kinds(list(_translation(queued).begin())) == OPENINGS
    created: list[Event] = [*queued, {"type": "response.created", "response": {}}]
    assert kinds(list(_translation(created).begin())) == ["in_progress"]


def test_the_engine_is_asked_for_a_chat_completion() -> None:
    request = _translation(max_output_tokens=3).request
    assert request["messages"] == [{"role": "user", "content": "hi"}]
    assert (request["max_tokens"], request["stream"]) == (3, True)

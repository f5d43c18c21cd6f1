"""Messages calls become chat completions, and the events of chat become those that the `anthropic` SDK reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from lifecycle.formats.messages import MessagesFormat
from lifecycle.formats.origin import Origin
from lifecycle.translation.messages import MessagesTranslation
from lifecycle.translation.messages_request import chat_request
from lifecycle.translation.messages_support import untranslatable
from lifecycle.types import Event

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
HI = [{"role": "user", "content": "hi"}]
TOOL = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {}}}
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def chat(**body: Any) -> dict[str, Any]:
    return chat_request({"model": "m", "max_tokens": 9, "messages": HI, **body})


# the call


def test_the_plain_fields_keep_their_values() -> None:
    body = chat(temperature=0.5, top_p=0.9, top_k=40, stream=True, stop_sequences=["END"], seed=1)
    assert body == {
        "model": "m",
        "max_tokens": 9,
        "messages": HI,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stream": True,
        "seed": 1,
        "stop": ["END"],
    }


@pytest.mark.parametrize(
    "system",
    ["Be brief.\n\nBe kind.", [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]],
)
def test_the_system_prompt_is_the_first_message(system: Any) -> None:
    assert chat(system=system)["messages"] == [{"role": "system", "content": "Be brief.\n\nBe kind."}, *HI]


def test_what_advises_only_anthropics_servers_is_left_out() -> None:
    given = {
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "service_tier": "auto",
        "context_management": {"edits": []},
        "cache_control": {"type": "ephemeral"},
        "metadata": {"user_id": "u1"},
    }
    assert chat(**given) == {"model": "m", "max_tokens": 9, "messages": HI, "user": "u1"}


def test_images_and_texts_are_parts() -> None:
    content = [
        {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
    ]
    [message] = chat(messages=[{"role": "user", "content": content}])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "T\n\nwords"},
    ]


def test_a_single_text_stays_a_string() -> None:
    content = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    assert chat(messages=[{"role": "user", "content": content}])["messages"] == HI


def test_tools_and_their_results_become_messages() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]}
    picture = {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "image", "source": PNG}]}
    bare = {"type": "tool_result", "tool_use_id": "t3"}
    said = {"type": "text", "text": "go on"}
    body = chat(
        messages=[
            *HI,
            {"role": "assistant", "content": [thinking, {"type": "redacted_thinking", "data": "x"}, said, use]},
            {"role": "user", "content": [result, picture, bare, said]},
        ],
        tools=[TOOL | {"cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert body["messages"] == [
        *HI,
        {"role": "assistant", "content": "go on", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": [image]},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "go on"},
    ]
    function = {"name": "weather", "parameters": TOOL["input_schema"], "description": "Tells it."}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False


@pytest.mark.parametrize(("kind", "choice"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_choice_of_tools(kind: str, choice: str) -> None:
    assert chat(tools=[TOOL], tool_choice={"type": kind})["tool_choice"] == choice
    assert "tool_choice" not in chat(tool_choice={"type": kind})


def test_a_wanted_form_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = chat(output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}})
    assert body["reasoning_effort"] == "low"
    assert body["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": HI, "tools": [TOOL, TOOL | {"type": "custom"}], "system": "s"}, []),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, ["tools[1].type"]),
        ({"mcp_servers": [{"type": "url"}], "container": "c"}, ["container", "mcp_servers"]),
        ({"mcp_servers": [], "container": None}, []),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": PNG}]}]},
            ["messages[0].content[0].source.type"],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            ["messages[0].content[0].source.type"],
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": [{"type": "server_tool_use"}, {"type": "x y"}]}]},
            ["messages[1].content[0].type"],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "z"}]}]}]},
            ["messages[0].content[0].content[0].type"],
        ),
    ],
)
def test_what_cannot_be_translated_is_named(body: dict[str, Any], named: list[str]) -> None:
    assert untranslatable(body) == named


# the answer


def translated(
    produced: Sequence[Event], emitted: Sequence[Event] = (), finish: str = "stop", usage: Any = None, **body: Any
) -> list[dict[str, Any]]:
    """Return the events that an attempt writes for what a chat engine yields."""
    origin = Origin("msg_1", 0.0, {"model": "m", "max_tokens": 9, "messages": HI, **body}, emitted)
    translation, format = MessagesTranslation(origin), MessagesFormat(origin)
    events = [*translation.begin()]
    for event in produced:
        events += translation.add(event)
    events += translation.end(finish, usage)
    encoded = [format.read(event).encoded for event in events]
    return [orjson.loads(event) for event in encoded if event]


def valid(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    for event in events:
        EVENTS.validate_python(event)
    return list(events)


def delta(**fields: Any) -> Event:
    return {"choices": [{"index": 0, "delta": fields}]}


def called(index: int, arguments: str = "", **more: Any) -> Event:
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return delta(tool_calls=[{"index": index, "function": function, **more}])


def test_a_text() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    events = valid(translated([delta(role="assistant", content=""), "Hel", "lo"], usage=usage))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = events[0]["message"]
    assert (message["id"], message["model"], message["content"]) == ("msg_1", "m", [])
    assert events[1]["content_block"] == {"type": "text", "text": ""}
    assert [event["delta"] for event in events[2:4]] == [
        {"type": "text_delta", "text": "Hel"},
        {"type": "text_delta", "text": "lo"},
    ]
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[5]["usage"] == {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 2}


def test_reasoning_text_and_two_tools_are_blocks_of_their_own() -> None:
    events = valid(
        translated(
            [
                delta(reasoning_content="hm"),
                delta(reasoning="!"),
                delta(content="Look:"),
                called(0, id="t1", name="weather"),
                called(0, '{"city":'),
                called(0, '"Oslo"}'),
                called(1, "{}", id="t2", name="clock"),
            ],
            finish="tool_calls",
        )
    )
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "clock", "input": {}},
    ]
    order = [event["index"] for event in events if "index" in event]
    assert order == sorted(order)
    assert "".join(e["delta"]["partial_json"] for e in events if e.get("index") == 2 and "delta" in e) == (
        '{"city":"Oslo"}'
    )
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", "max_tokens"), ("content_filter", "refusal"), ("function_call", "tool_use"), ("odd", "end_turn")],
)
def test_finish_reasons(finish: str, reason: str) -> None:
    assert valid(translated(["x"], finish=finish))[-2]["delta"]["stop_reason"] == reason


def test_a_server_that_stops_after_a_named_tool() -> None:
    assert valid(translated([called(0, "{}", name="f")]))[-2]["delta"]["stop_reason"] == "tool_use"


def test_the_stop_sequence_that_the_server_names() -> None:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]}
    events = valid(translated(["x", last], stop_sequences=["END"]))
    assert events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    other = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 128001}]}
    assert translated(["x", other], stop_sequences=["END"])[-2]["delta"]["stop_reason"] == "end_turn"


def test_an_answer_without_any_content() -> None:
    assert [event["type"] for event in valid(translated([]))] == ["message_start", "message_delta", "message_stop"]


PRODUCED: list[Event] = [
    delta(reasoning_content="hm"),
    "He",
    "llo",
    called(0, id="t1", name="f"),
    called(0, '{"a":'),
    called(0, "1}"),
]


@pytest.mark.parametrize("count", range(16))
def test_a_later_attempt_continues_where_the_stream_ends(count: int) -> None:
    whole = translated(PRODUCED, finish="tool_calls")
    emitted = whole[:count]
    origin = Origin("msg_1", 0.0, {"model": "m", "max_tokens": 9, "messages": HI}, emitted)
    resumed = MessagesTranslation(origin).emitted
    assert len(resumed) == sum(
        event["type"] == "content_block_delta" or event.get("content_block", {}).get("type") == "tool_use"
        for event in emitted
    )
    rest = translated(PRODUCED[len(resumed) :], emitted, finish="tool_calls")
    assert emitted + rest == whole


def test_the_message_that_the_types_describe() -> None:
    [start, *_] = translated(["x"])
    Message.model_validate(start["message"])

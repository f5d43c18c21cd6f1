"""Check the chat completion that a Responses call becomes, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.translation.responses_request import to_chat_body

STREAM = {"stream": True, "stream_options": {"include_usage": True}}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FLAT = {"type": "function", "name": "weather", "description": "d", "parameters": PARAMETERS, "strict": True}
NESTED = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": PARAMETERS, "strict": True},
}
OTHER = {"type": "function", "name": "time", "description": None, "parameters": None, "strict": None}
OTHER_NESTED = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "weather"}}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": None}
CHAT_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}


def _call(call_id: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }


def _chat_call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def _output(call_id: str, output: Any = "1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _said(*texts: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def _thought(*texts: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text} for text in texts]
    return {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}], "content": content}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"input": "hi"}, [_user("hi")]),
        ({"input": "hi", "instructions": "be kind"}, [{"role": "system", "content": "be kind"}, _user("hi")]),
        ({"input": "hi", "instructions": None}, [_user("hi")]),
        ({"input": [_user("a"), {"type": "message", **_user("b")}]}, [_user("a"), _user("b")]),
        ({"input": [_user([{"type": "input_text", "text": "a"}])]}, [_user("a")]),
        (
            {"input": [_user([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}])]},
            [_user([_text("a"), _text("b")])],
        ),
        ({"input": [_user([])]}, [_user("")]),
        (
            {"input": [_user([{"type": "input_image", "image_url": "data:i", "detail": "low"}])]},
            [_user([{"type": "image_url", "image_url": {"url": "data:i", "detail": "low"}}])],
        ),
        (
            {"input": [_user([{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "http://i"}])]},
            [_user([_text("a"), {"type": "image_url", "image_url": {"url": "http://i"}}])],
        ),
        (
            {"input": [_user([{"type": "input_file", "file_data": "data:f", "filename": "f.pdf", "file_id": None}])]},
            [_user([{"type": "file", "file": {"file_data": "data:f", "filename": "f.pdf"}}])],
        ),
        (
            {"input": [_user([{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}])]},
            [_user([{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}])],
        ),
        # Instructions and the messages of the system and the developer at the beginning are one message.
        (
            {"input": [{"role": "developer", "content": "b"}, {"role": "system", "content": "c"}], "instructions": "a"},
            [{"role": "system", "content": "a\n\nb\n\nc"}],
        ),
        (
            {"input": [_user("hi"), {"role": "developer", "content": "b"}]},
            [_user("hi"), {"role": "system", "content": "b"}],
        ),
        # Items of the model
        ({"input": [_said("a")]}, [{"role": "assistant", "content": "a"}]),
        ({"input": [_said("a", "b")]}, [{"role": "assistant", "content": [_text("a"), _text("b")]}]),
        ({"input": [{"role": "assistant", "content": "a"}]}, [{"role": "assistant", "content": "a"}]),
        (
            {"input": [_said("a"), _said("b")]},
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]},
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        ),
        (
            {"input": [_call("1"), _output("1")]},
            [
                {"role": "assistant", "content": None, "tool_calls": [_chat_call("1")]},
                {"role": "tool", "tool_call_id": "1", "content": "1"},
            ],
        ),
        (
            {"input": [_user("hi"), _thought("t", "u"), _said("a"), _call("1"), _call("2"), _output("1"), _said("b")]},
            [
                _user("hi"),
                {
                    "role": "assistant",
                    "reasoning_content": "tu",
                    "content": "a",
                    "tool_calls": [_chat_call("1"), _chat_call("2")],
                },
                {"role": "tool", "tool_call_id": "1", "content": "1"},
                {"role": "assistant", "content": "b"},
            ],
        ),
        # The result of a call follows the message with the call, so what stands between them joins that message.
        (
            {"input": [_said("a"), _call("1"), _thought("t"), _said("b"), _output("1")]},
            [
                {
                    "role": "assistant",
                    "content": [_text("a"), _text("b")],
                    "reasoning_content": "t",
                    "tool_calls": [_chat_call("1")],
                },
                {"role": "tool", "tool_call_id": "1", "content": "1"},
            ],
        ),
        (
            {"input": [_said("a"), _thought("t"), _said("b")]},
            [
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "reasoning_content": "t", "content": "b"},
            ],
        ),
        ({"input": [_user("hi"), {"type": "reasoning", "id": "rs_1", "summary": []}]}, [_user("hi")]),
        (
            {"input": [_output("1", [{"type": "input_text", "text": "a"}])]},
            [{"role": "tool", "tool_call_id": "1", "content": "a"}],
        ),
        (
            {"input": [_output("1", [{"type": "input_image", "image_url": "data:i"}])]},
            [
                {
                    "role": "tool",
                    "tool_call_id": "1",
                    "content": [{"type": "image_url", "image_url": {"url": "data:i"}}],
                }
            ],
        ),
        # What has no form in chat is left out; such a call does not come here.
        ({"input": [{"id": "msg_1"}, "hi", _user([{"type": "hologram"}, "x"])]}, [_user("")]),
        ({"input": 7, "instructions": 7}, []),
        ({}, []),
    ],
)
def test_the_input_becomes_messages(body: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    assert to_chat_body(body) == {"messages": messages, **STREAM}


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"model": "m", "temperature": 0.5, "top_p": 0.9}, {"model": "m", "temperature": 0.5, "top_p": 0.9}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"max_output_tokens": None, "temperature": None, "user": None}, {}),
        ({"seed": 2**64, "top_k": 4, "vendor": {"a": [1]}}, {"seed": 2**64, "top_k": 4, "vendor": {"a": [1]}}),
        (
            {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
            {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
        ),
        ({"service_tier": "flex", "priority": 3}, {"service_tier": "flex", "priority": 3}),
        ({"truncation": "auto", "store": False, "background": True, "previous_response_id": "resp_1"}, {}),
        ({"stream": False, "stream_options": {"include_obfuscation": False}, "max_tool_calls": 1}, {}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": None}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"text": {"format": SCHEMA}}, {"response_format": CHAT_SCHEMA}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 0}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"tools": [FLAT, OTHER]}, {"tools": [NESTED, OTHER_NESTED]}),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        (
            {"tools": [FLAT], "tool_choice": "auto", "parallel_tool_calls": False},
            {"tools": [NESTED], "tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"tools": [FLAT], "tool_choice": "required"}, {"tools": [NESTED], "tool_choice": "required"}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"}},
            {"tools": [NESTED], "tool_choice": NAMED},
        ),
        (
            {
                "tools": [FLAT, OTHER],
                "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{**FLAT}]},
            },
            {"tools": [NESTED], "tool_choice": "required"},
        ),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, {}),
    ],
)
def test_fields_get_the_names_of_chat(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    assert to_chat_body({"input": "hi", **fields}) == {"messages": [_user("hi")], **chat, **STREAM}


def test_the_call_itself_is_not_changed() -> None:
    items = [_user("a"), _thought("t"), _said("b"), _call("1"), _said("c")]
    body = {"input": items, "tools": [FLAT], "instructions": "i"}
    before = repr(body)
    to_chat_body(body)
    assert repr(body) == before

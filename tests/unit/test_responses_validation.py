"""Calls of the Responses API: what is refused, and what a call needs of an engine."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.responses.validation import parse
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import RequestType, Storage

FUNCTION = {"type": "function", "name": "f", "parameters": {}}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "input": "hi"} | fields)


def message(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "hi"} | fields


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input": []},
        {"input": [message()]},
        {"input": [message(content=[{"type": "input_text", "text": "hi"}])]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
        {"input": None, "previous_response_id": "resp_0"},
        {"model": None},
        {"metadata": {str(n): "x" * 512 for n in range(16)}},
        {"metadata": {"x" * 64: ""}},
        {"instructions": None, "tools": [], "tool_choice": "auto", "text": {}, "include": ["a.b"]},
        {"text": {"format": {"type": "text"}}, "truncation": "auto", "temperature": 99},
        {"vendor": {"x": 1}},
    ],
)
def test_what_is_valid_needs_nothing(fields: dict[str, Any]) -> None:
    call = parse(body(**fields))
    assert call.gated == ()
    assert call.storage is Storage.KEPT
    assert not call.is_background


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [message(role=None)]}, "input[0].role"),
        ({"input": [message(content=5)]}, "input[0].content"),
        ({"input": [message(content=["hi"])]}, "input[0].content[0]"),
        ({"input": [message(content=[{}])]}, "input[0].content[0].type"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"model": ""}, "model"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"background": "yes"}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"store": 0}, "store"),
        ({"include": "a"}, "include"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"x" * 65: ""}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {"a": 5}}, "metadata.a"),
        ({"instructions": 5}, "instructions"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"reasoning": "high"}, "reasoning"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {}}}, "text.format.type"),
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"truncation": True}, "truncation"),
        ({"previous_response_id": ""}, "previous_response_id"),
        ({"safety_identifier": 5}, "safety_identifier"),
        ({"prompt_cache_key": 5}, "prompt_cache_key"),
    ],
)
def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(body(**fields))
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [FUNCTION]}, ["tools"]),
        ({"tool_choice": "required"}, ["tool_choice"]),
        ({"tool_choice": {"type": "function", "name": "f"}}, ["tool_choice"]),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, ["response_format"]),
        ({"top_logprobs": 2}, ["top_logprobs"]),
        ({"top_logprobs": 0, "include": ["message.output_text.logprobs"]}, []),
        ({"tools": [{"type": "web_search"}]}, ["native:tools[0].type"]),
        ({"tools": [FUNCTION, {"type": "web_search"}]}, ["native:tools[1].type", "tools"]),
        ({"conversation": "conv_1"}, ["native:conversation"]),
        ({"prompt": {"id": "p"}, "input": None}, ["native:prompt"]),
        ({"input": [{"type": "item_reference", "id": "x"}]}, ["native:input[0].type"]),
    ],
)
def test_what_a_call_needs(fields: dict[str, Any], needs: list[str]) -> None:
    assert list(parse(body(**fields)).gated) == needs


@pytest.mark.parametrize(
    ("fields", "storage"),
    [
        ({}, Storage.KEPT),
        ({"store": True}, Storage.KEPT),
        ({"store": False}, Storage.TRANSIENT),
        ({"background": True}, Storage.BACKGROUND),
        ({"background": False, "store": None}, Storage.KEPT),
    ],
)
def test_where_the_content_is_kept(fields: dict[str, Any], storage: Storage) -> None:
    assert parse(body(**fields)).storage is storage


def test_a_stream_is_one() -> None:
    assert parse(body(stream=True)).request_type is RequestType.STREAM
    assert parse(body()).request_type is RequestType.UNARY

"""Calls of the Messages API: what is refused, and what a call needs of an engine."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints import endpoint_at
from frontend.endpoints.messages.endpoint import CountTokens, Messages
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import RequestType

TOOL = {"name": "f", "input_schema": {"type": "object"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}}


def body(**fields: Any) -> bytes:
    plain = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    return orjson.dumps({name: value for name, value in {**plain, **fields}.items() if value is not None})


def says(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, []),
        ({"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}, []),
        ({"tools": [], "tool_choice": {"type": "auto"}, "thinking": {"type": "adaptive"}}, []),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, ["tools", "tool_choice"]),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, ["native:tools[0].type"]),
        ({"output_config": {"format": {"type": "json_schema"}}}, ["response_format"]),
        ({"output_config": {"effort": "low"}, "unknown": 1}, []),
        (says(PDF), ["native:messages[0].content[0].source.type"]),
        ({"mcp_servers": [{"type": "url"}]}, ["native:mcp_servers"]),
    ],
)
def test_what_a_call_needs(fields: dict[str, Any], needs: list[str]) -> None:
    call = Messages().parse(body(**fields))
    assert list(call.gated) == needs
    assert (call.endpoint, call.model, call.request_type) == ("messages", "m", RequestType.UNARY)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"system": 1}, "system"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"tools": [{"description": "no name"}]}, "tools[0].name"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"metadata": "u"}, "metadata"),
        ({"output_config": {"format": "json"}}, "output_config.format"),
        (says({"text": "x"}), "messages[0].content[0].type"),
        (says({"type": "text"}), "messages[0].content[0].text"),
        (says({"type": "image"}), "messages[0].content[0].source"),
        (says({"type": "tool_use", "name": "f", "input": {}}), "messages[0].content[0].id"),
        (says({"type": "tool_result", "tool_use_id": "t", "content": 1}), "messages[0].content[0].content"),
        (
            says({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text"}]}),
            "messages[0].content[0].content[0].text",
        ),
    ],
)
def test_what_no_engine_could_read_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as raised:
        Messages().parse(body(**fields))
    assert (raised.value.status, raised.value.param) == (400, param)
    assert "\n" not in raised.value.message


def test_a_stream_is_told_by_its_field() -> None:
    assert Messages().parse(body(stream=True)).request_type is RequestType.STREAM
    assert CountTokens().parse(body(max_tokens=None, stream=True)).request_type is RequestType.UNARY


def test_counting_tokens_needs_an_engine_that_can() -> None:
    call = CountTokens().parse(body(max_tokens=None, tools=[TOOL]))
    assert (call.endpoint, call.gated) == ("messages", ("serves:count_tokens",))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "messages"),
        ("/v1/messages/count_tokens", "messages"),
        ("/v1/messages/batches/b1", "messages"),
        ("/v1/messagesx", None),
        ("/v1/responses/resp_1/cancel", "responses"),
        ("/v1/models", None),
        ("/", None),
        ("", None),
    ],
)
def test_the_endpoint_that_a_path_belongs_to(path: str, name: str | None) -> None:
    found = endpoint_at(path)
    assert (found.name if found else None) == name

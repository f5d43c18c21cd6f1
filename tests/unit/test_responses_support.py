"""Check that what no translation can express is found, under the name that a client reads."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.translation.responses_support import untranslatable

FUNCTION = {"type": "function", "name": "f", "parameters": {}}


def _message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": "hi"}, []),
        ({"input": [{"role": "user", "content": "hi"}, {"type": "message", "role": "user", "content": []}]}, []),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, []),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, []),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, []),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, ["input[0].type"]),
        ({"input": [{"role": "user", "content": "hi"}, {"id": "msg_1"}]}, ["input[1].type"]),
        ({"input": [{"type": "computer_call"}, {"type": "mcp_call"}]}, ["input[0].type"]),
        ({"input": ["hi"]}, ["input[0].type"]),
        (_message({"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "http://i"}), []),
        (_message({"type": "input_image", "file_id": "file_1"}), ["input[0].content[0].file_id"]),
        (_message({"type": "input_file", "file_data": "data:"}, {"type": "input_file", "file_id": "file_1"}), []),
        (_message({"type": "input_file", "file_url": "http://f"}), ["input[0].content[0].file_url"]),
        (_message({"type": "input_text", "text": ""}, {"type": "hologram"}), ["input[0].content[1].type"]),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "hologram"}]}]},
            ["input[0].output[0].type"],
        ),
        ({"tools": [FUNCTION]}, []),
        ({"tools": [FUNCTION, {"type": "web_search"}, {"type": "custom", "name": "g"}]}, ["tools[1].type"]),
        ({"tools": [{"type": "image_generation"}]}, ["tools[0].type"]),
        ({"tool_choice": "required"}, []),
        ({"tool_choice": {"type": "function", "name": "f"}}, []),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]}}, []),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            ["tool_choice.tools[0].type"],
        ),
        ({"tool_choice": {"type": "file_search"}}, ["tool_choice.type"]),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, []),
        ({"text": {"format": {"type": "grammar"}}}, ["text.format.type"]),
        ({"conversation": "conv_1"}, ["conversation"]),
        ({"conversation": None, "prompt": None}, []),
        ({"prompt": {"id": "pmpt_1"}, "conversation": {"id": "conv_1"}}, ["conversation", "prompt"]),
        ({"context_management": [{"type": "compaction"}]}, ["context_management"]),
        ({"background": True, "store": False, "truncation": "auto", "include": ["reasoning.encrypted_content"]}, []),
        ({"conversation": "c", "tools": [{"type": "mcp"}]}, ["conversation", "tools[0].type"]),
    ],
)
def test_what_cannot_be_translated_is_named(body: dict[str, Any], named: list[str]) -> None:
    assert untranslatable(body) == named


def test_the_names_can_be_kept_in_one_list_with_spaces_between_them() -> None:
    body = {"input": [{"type": "a b"}], "tools": [{"type": "c d"}], "tool_choice": {"type": "e f"}}
    assert not any(" " in name for name in untranslatable(body))

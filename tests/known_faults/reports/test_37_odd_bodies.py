"""Bodies as real clients send them: nulls for everything optional, other roles, parts, unknown fields, both limits.

All must be served. A limit that is OpenAI's and not the engine's refuses none: not more than four stop sequences, not
`max_tokens` -1, with which llama.cpp and LM Studio say "no limit", and not `max_tokens` 5.0.
Source: SillyTavern/SillyTavern#1844, LostRuins/koboldcpp#643.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.known_faults.reports.kit import Site, chat

USER = {"role": "user", "content": "hello"}
OPTIONAL_FIELDS = """
stream stream_options stop n temperature top_p max_tokens max_completion_tokens seed user tools tool_choice
functions function_call logprobs top_logprobs logit_bias response_format modalities audio prediction
reasoning_effort service_tier metadata store parallel_tool_calls presence_penalty web_search_options
"""
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL_TURN = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "3"}]},
    USER,
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
UNKNOWN = {
    "top_k": 5,
    "min_p": 0.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "extra_body": {},
    "verbosity": "low",
    "prompt_cache_key": "k",
}
TEXT = "hello \x00 \ufeff \U0001f468\u200d\U0001f469 \u202eabc"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(dict.fromkeys(OPTIONAL_FIELDS.split()), id="null everywhere"),
        pytest.param({"tools": [], "functions": [], "stop": [], "logit_bias": {}}, id="empty lists"),
        pytest.param({"messages": [{"role": "developer", "content": "be kind"}, USER]}, id="developer"),
        pytest.param({"messages": TOOL_TURN}, id="a tool's turn"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, IMAGE]}]}, id="an image"
        ),
        pytest.param(
            {"messages": [{**USER, "name": None, "refusal": None, "tool_calls": None}]}, id="null in messages"
        ),
        pytest.param(UNKNOWN, id="unknown fields"),
        pytest.param({"messages": [{"role": "user", "content": TEXT}]}, id="NUL, BOM, emoji, right-to-left"),
        pytest.param({"messages": [USER, {"role": "assistant", "content": "hello"}]}, id="a prefill"),
        pytest.param({"max_tokens": 5.0}, id="a whole number as a float"),
        pytest.param({"stop": ["q1", "q2", "q3", "q4", "q5"]}, id="five stop sequences"),
        pytest.param({"max_tokens": -1}, id="max_tokens -1"),
    ],
)
async def test_a_body_of_a_real_client_is_served(site: Site, fields: dict[str, Any]) -> None:
    answer = await site.http.post(site.url + "/v1/chat/completions", json={**chat("echo", "hello"), **fields})
    assert answer.status_code == 200, answer.text
    assert "hello" in answer.json()["choices"][0]["message"]["content"]

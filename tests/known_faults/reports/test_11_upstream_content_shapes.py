"""Content other than a plain string in `delta.content` must reach the client: lists of parts, refusals, tool calls.

Today it is lost, and the request completes empty. Expected: it passes through, in a stream and in a unary answer.
Source: symfony/ai#2422, NousResearch/hermes-agent#94905, laravel/ai#866 (Mistral); simonw/llm-mistral#39.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
TOOL_CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])


@BOTH
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param(
            [
                chunk({"content": [THINKING]}),
                chunk({"content": [{"type": "text", "text": "the answer"}]}),
                chunk({}, "stop"),
            ],
            "the answer",
            id="list of parts",
        ),
        pytest.param(
            [chunk({"role": "assistant", "refusal": "I cannot help with that"}), chunk({}, "stop")],
            "I cannot help with that",
            id="refusal",
        ),
        pytest.param(
            [chunk({"content": None, "tool_calls": [TOOL_CALL]}), chunk({}, "tool_calls")], "look_up", id="tool call"
        ),
    ],
)
async def test_content_of_any_shape_arrives(
    site: Site, upstream: Upstream, chunks: list[bytes], expected: str, stream: bool
) -> None:
    text = f"11: {expected}"
    upstream.play(text, lambda call: [STREAM_HEAD, *chunks, DONE])
    answer = await site.ask("upstream", text, stream=stream)
    assert answer.status_code == 200, answer.text
    assert expected in answer.text


async def test_the_finish_reason_tool_calls_comes_with_tool_calls(site: Site, upstream: Upstream) -> None:
    text = "11: tools"
    upstream.play(
        text,
        lambda call: [STREAM_HEAD, chunk({"content": None, "tool_calls": [TOOL_CALL]}), chunk({}, "tool_calls"), DONE],
    )
    answer = await site.ask("upstream", text)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"].get("tool_calls") or []] == ["look_up"]

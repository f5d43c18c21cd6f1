"""An upstream that answers a streaming call with one JSON body has still answered: a fallback, a cache, a fake stream.

In 0.1, such an answer is pasted into an error message. Expected: it is used, or refused in words. An error envelope
that is typed as a stream is quoted.
Source: headroomlabs-ai/headroom#3130, inference-gateway/inference-gateway#578, nashsu/llm_wiki#619.
"""

from __future__ import annotations

import json

import pytest

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import STREAM_HEAD, Upstream, whole

MESSAGE = {"role": "assistant", "content": "whole answer"}
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
async def test_a_whole_answer_is_used_or_refused_in_words(site: Site, upstream: Upstream, stream: bool) -> None:
    upstream.play("15: json", lambda call: [whole("200 OK", json.dumps(ANSWER))])
    answer = await site.ask("upstream", "15: json", stream=stream)
    used = answer.status_code == 200 and '"error"' not in answer.text
    assert ("whole answer" in answer.text) == used


async def test_an_error_typed_as_a_stream_is_quoted(site: Site, upstream: Upstream) -> None:
    upstream.play("15: typed", lambda call: [STREAM_HEAD, b'{"error":{"message":"model crashed"}}\n'])
    answer = await site.ask("upstream", "15: typed")
    assert answer.status_code == 500
    assert "model crashed" in answer.text

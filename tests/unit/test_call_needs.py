"""Test that of any body is told what it needs of an engine: those that are submitted are not checked before."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.tracking.call_needs import needs_of
from lifecycle.types import Endpoint


@pytest.mark.parametrize(
    ("endpoint", "body", "needs"),
    [
        (Endpoint.MESSAGES, {"messages": [{"content": [{"type": []}]}]}, ("native:messages[0].content[0].type",)),
        (Endpoint.MESSAGES, {"messages": [[]], "tools": {}, "tool_choice": [], "output_config": 1}, ()),
        (Endpoint.RESPONSES, {"input": [{"type": []}]}, ("native:input[0].type",)),
        (Endpoint.RESPONSES, {"input": [{"content": [[]]}], "tools": 1, "text": []}, ("native:input[0].type",)),
        (Endpoint.CHAT_COMPLETIONS, {"n": "2", "top_logprobs": [], "modalities": 1, "tools": ""}, ()),
        (Endpoint.COMPLETIONS, {"n": {}, "best_of": "2", "prompt": 1}, ()),
    ],
)
def test_a_body_may_be_malformed(endpoint: Endpoint, body: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert needs_of(endpoint, body) == needs

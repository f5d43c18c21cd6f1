"""The estimate of a request's tokens, before an engine has counted them."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.formats.token_estimate import estimate_tokens
from lifecycle.types import COUNT_TOKENS, SERVES, Endpoint


@pytest.mark.parametrize(
    ("endpoint", "body", "output"),
    [
        (Endpoint.CHAT_COMPLETIONS, {}, None),
        (Endpoint.CHAT_COMPLETIONS, {"max_tokens": 7}, 7),
        (Endpoint.CHAT_COMPLETIONS, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (Endpoint.CHAT_COMPLETIONS, {"max_tokens": 7, "n": 3}, 21),
        (Endpoint.CHAT_COMPLETIONS, {"max_tokens": 0}, 0),
        (Endpoint.CHAT_COMPLETIONS, {"max_tokens": 10**18, "n": 10**9}, 10_000_000),
        *((Endpoint.CHAT_COMPLETIONS, {"max_tokens": wrong}, None) for wrong in (None, -1, True, 1e400)),
        (Endpoint.COMPLETIONS, {"max_tokens": 7, "best_of": 4, "prompt": ["a", "b"]}, 56),
        (Endpoint.COMPLETIONS, {"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
        (Endpoint.COMPLETIONS, {"max_completion_tokens": 7}, None),
        (Endpoint.RESPONSES, {"max_output_tokens": 7, "max_tokens": 9}, 7),
        (Endpoint.MESSAGES, {"max_tokens": 7, "n": 5}, 7),
        *((endpoint, {"max_tokens": 7}, 0) for endpoint in (Endpoint.EMBEDDINGS, Endpoint.RERANK, Endpoint.TOKENIZE)),
        ("agent", {"max_tokens": 7}, None),
    ],
)
def test_output_is_what_the_call_allows(endpoint: str, body: dict[str, Any], output: int | None) -> None:
    assert estimate_tokens(endpoint, body, 0).output == output


def test_the_prompt_has_a_token_for_each_four_bytes() -> None:
    assert [estimate_tokens("agent", {}, size).prompt for size in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_call_that_only_counts_tokens_has_no_output() -> None:
    assert estimate_tokens(Endpoint.MESSAGES, {"max_tokens": 7}, 8, (SERVES + COUNT_TOKENS,)) == (2, 0)

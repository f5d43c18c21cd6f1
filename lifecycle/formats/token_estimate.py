"""Estimate how many tokens a request will take, before an engine has counted them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lifecycle.types import COUNT_TOKENS, FORWARDS, SERVES, Endpoint

BYTES_OF_A_TOKEN = 4
_MOST_OUTPUT = 10_000_000  # tokens, of a limit that is larger or makes no sense
_MOST_ANSWERS = 1000

_LIMITS: Mapping[str, tuple[str, ...]] = {
    Endpoint.CHAT_COMPLETIONS: ("max_completion_tokens", "max_tokens"),
    Endpoint.COMPLETIONS: ("max_tokens",),
    Endpoint.RESPONSES: ("max_output_tokens",),
    Endpoint.MESSAGES: ("max_tokens",),
}
"""The names of the limit of output tokens, the stronger one first."""


class TokenEstimate(NamedTuple):
    """Hold what a request is expected to take. `output` is None where the call sets no limit of it."""

    prompt: int
    output: int | None


def estimate_tokens(
    endpoint: str, body: Mapping[str, Any], body_bytes: int, needs: tuple[str, ...] = ()
) -> TokenEstimate:
    """Estimate from a call's body: a token of the prompt for each four bytes, and as much output as it allows.

    A forward has no output, and neither has a call whose tokens are only to be counted (`needs`).
    """
    prompt = -(-body_bytes // BYTES_OF_A_TOKEN)
    if endpoint in FORWARDS or SERVES + COUNT_TOKENS in needs:
        return TokenEstimate(prompt, 0)
    for name in _LIMITS.get(endpoint, ()):
        limit = _whole(body[name]) if name in body else None
        if limit is not None:
            return TokenEstimate(prompt, min(limit * _answers(endpoint, body), _MOST_OUTPUT))
    return TokenEstimate(prompt, None)


def _answers(endpoint: str, body: Mapping[str, Any]) -> int:
    """Return how many answers a call asks for, each of which may have as many tokens as the limit says."""
    if endpoint not in (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS):
        return 1
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return min(max(_whole(body.get("n")) or 1, _whole(body.get("best_of")) or 1) * prompts, _MOST_ANSWERS)


def _whole(value: object) -> int | None:
    """Return a number of tokens or answers, None if the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return int(min(value, _MOST_OUTPUT))

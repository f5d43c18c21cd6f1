"""Know how each endpoint of an OpenAI-compatible server is called, and how its responses are parsed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lifecycle.execution.context import EngineContext
from lifecycle.types import COUNT_TOKENS, Endpoint
from worker.engines.answer_parser import AnswerParser
from worker.engines.completion_parser import CompletionParser
from worker.engines.forward_parser import ForwardParser
from worker.engines.messages_parser import MessagesParser
from worker.engines.responses_parser import ResponsesParser
from worker.engines.upstream_errors import Scrub

MakeParser = Callable[[dict[str, Any], EngineContext, Scrub, int], AnswerParser]
"""Makes the parser of the response to a request, for its context. The last two arguments are those of AnswerParser."""


class UpstreamCall(NamedTuple):
    """Describe the call of one endpoint.

    - `path`: behind the upstream's base URL, which ends in `/v1`
    - `body`: returns the body to send for a request, which it must not change
    - `at_root`: the path is at the server's root, beside `/v1`
    - `accept`: the `Accept` header
    - `parser`: makes the parser of the response
    """

    path: str
    body: Callable[[dict[str, Any]], dict[str, Any]]
    parser: MakeParser
    at_root: bool = False
    accept: str = "text/event-stream"


def call_of(endpoint: str, request: dict[str, Any]) -> UpstreamCall:
    """Return how a request is sent on. One of an endpoint that is unknown here is a completion."""
    if endpoint not in CALLS:
        endpoint = Endpoint.CHAT_COMPLETIONS if "messages" in request else Endpoint.COMPLETIONS
    return CALLS[endpoint]


def _completion_body(request: dict[str, Any]) -> dict[str, Any]:
    """Return the client's own body, as a stream that reports its usage."""
    options = request.get("stream_options")
    options = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return {**request, "stream": True, "stream_options": options}


def _completion_parser(
    request: dict[str, Any], context: EngineContext, scrub: Scrub, max_output_bytes: int
) -> CompletionParser:
    return CompletionParser(context, _choices(request), scrub, max_output_bytes)


def _choices(request: dict[str, Any]) -> int:
    """Return how many choices the answer to a request has: `n` for each prompt."""
    n, prompt = request.get("n"), request.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return (n if type(n) is int and n > 0 else 1) * (len(prompt) if several and isinstance(prompt, list) else 1)


def _responses_body(request: dict[str, Any]) -> dict[str, Any]:
    """Return the client's own body, as a stream. The tracker itself keeps responses, and runs them in the background.

    The input has the items of the response that this one continues.
    """
    body = {name: value for name, value in request.items() if name != "previous_response_id"}
    return {**body, "stream": True, "store": False, "background": False}


def _stream_body(request: dict[str, Any]) -> dict[str, Any]:
    """Return the client's own body, as a stream."""
    return {**request, "stream": True}


def _for_any(kind: Callable[[Scrub, int], AnswerParser]) -> MakeParser:
    """Return what makes parsers of this kind, to which neither the request nor its context matters."""
    return lambda request, context, scrub, max_output_bytes: kind(scrub, max_output_bytes)


def _forward(path: str, *, at_root: bool = False) -> UpstreamCall:
    return UpstreamCall(path, lambda request: request, _for_any(ForwardParser), at_root, "application/json")


CALLS: dict[str, UpstreamCall] = {
    Endpoint.CHAT_COMPLETIONS: UpstreamCall("/chat/completions", _completion_body, _completion_parser),
    Endpoint.COMPLETIONS: UpstreamCall("/completions", _completion_body, _completion_parser),
    Endpoint.RESPONSES: UpstreamCall("/responses", _responses_body, _for_any(ResponsesParser)),
    Endpoint.MESSAGES: UpstreamCall("/messages", _stream_body, _for_any(MessagesParser)),
    COUNT_TOKENS: _forward("/messages/count_tokens"),
    Endpoint.EMBEDDINGS: _forward("/embeddings"),
    Endpoint.RERANK: _forward("/rerank"),
    Endpoint.SCORE: _forward("/score"),
    Endpoint.TOKENIZE: _forward("/tokenize", at_root=True),
    Endpoint.DETOKENIZE: _forward("/detokenize", at_root=True),
}
"""By the endpoint that the request came to, as `EngineContext.endpoint` names it."""

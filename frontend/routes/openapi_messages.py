"""Describe the calls of the Messages API for `GET /openapi.json`."""

from __future__ import annotations

from frontend.routes.json_schema import Schema, ref
from frontend.routes.operations import EVENTS, JSON, answered, starting_call

MESSAGES_ERROR = "MessageError"
"""The schema of the errors of these calls."""

MESSAGES: dict[str, Schema] = {
    "/v1/messages": {
        "post": starting_call(
            "MessagesCall",
            answered(
                "the message, or its event stream",
                {JSON: {"schema": ref("Message")}, EVENTS: {"schema": ref("MessageEvent")}},
            ),
            "Create a message, in Anthropic's format",
            error=MESSAGES_ERROR,
        )
    },
    "/v1/messages/count_tokens": {
        "post": starting_call(
            "TokenCountCall",
            answered("the number of tokens", {JSON: {"schema": ref("TokenCount")}}),
            "Count the tokens of a message that is not created",
            error=MESSAGES_ERROR,
        )
    },
}

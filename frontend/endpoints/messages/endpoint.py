"""The endpoints `POST /v1/messages` and `POST /v1/messages/count_tokens`, in Anthropic's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import orjson

from frontend.endpoints.body_rules import load_object
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call, Fold
from frontend.endpoints.forwards.answer import AnswerFold
from frontend.endpoints.messages.errors import error_object
from frontend.endpoints.messages.fold import MessageFold
from frontend.endpoints.messages.progress import read_progress
from frontend.endpoints.messages.sse import MessageEncoder
from frontend.endpoints.messages.validation import (
    COUNT_REQUIRED,
    COUNT_RULES,
    REQUIRED,
    RULES,
    check,
)
from lifecycle.fastapi.errors import ApiError
from lifecycle.formats import message_object
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.tracking.call_needs import needs_of
from lifecycle.types import COUNT_TOKENS, SERVES, Endpoint, Event, RequestType


class _Anthropic(ApiEndpoint):
    """Describe what both have in common: errors, headers and events in Anthropic's form."""

    name = Endpoint.MESSAGES
    id_prefix = "msg_"
    id_headers: ClassVar = (b"request-id",)
    forwarded_headers: ClassVar = frozenset({"anthropic-version", "anthropic-beta"})
    parameters: ClassVar[Mapping[str, str]] = {"response_format": "output_config.format"}

    def encoder(self, answer: Answer, call: Call) -> MessageEncoder:
        return MessageEncoder(answer)

    async def resumed_encoder(self, answer: Answer, after: TokenId, store: Store) -> MessageEncoder:
        return MessageEncoder(answer, await read_progress(store, answer.id, after))

    def error_body(self, error: ApiError, request_id: str) -> bytes:
        return orjson.dumps(error_object(error.status, error.type, error.message, request_id))


class Messages(_Anthropic):
    """Create a message."""

    paths = ("/v1/messages",)

    def parse(self, body: bytes) -> Call:
        fields = load_object(body)
        check(fields, RULES, REQUIRED)
        request_type = RequestType.STREAM if fields.get("stream") else RequestType.UNARY
        return Call(self.name, fields["model"], request_type, fields, gated=needs_of(self.name, fields))

    def fold(self) -> Fold:
        return MessageFold()

    def is_opening(self, event: Event) -> bool:
        return message_object.is_opening(event)


class CountTokens(_Anthropic):
    """Count the tokens of a message that is not created.

    The request belongs to the endpoint `messages`. What it needs says that it goes to an engine that counts.
    """

    paths = ("/v1/messages/count_tokens",)

    def parse(self, body: bytes) -> Call:
        fields = load_object(body)
        check(fields, COUNT_RULES, COUNT_REQUIRED)
        return Call(self.name, fields["model"], RequestType.UNARY, fields, gated=(SERVES + COUNT_TOKENS,))

    def fold(self) -> Fold:
        return AnswerFold()
